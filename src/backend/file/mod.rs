//! stub
#![allow(missing_docs, unused_variables, unused_imports)]
use super::*;
#[derive(Debug)]
pub struct FileBackend;
impl FileBackend {
    pub fn init(path: &std::path::Path) -> Result<Self> {
        todo!()
    }
    pub fn open(path: &std::path::Path) -> Result<Self> {
        todo!()
    }
}
impl Backend for FileBackend {
    fn capabilities(&self) -> Capabilities {
        todo!()
    }
    fn store_id(&self) -> &str {
        todo!()
    }
    fn staging(&self) -> &StagingArea {
        todo!()
    }
    fn stat(&self, key: &Key) -> Result<Stat> {
        todo!()
    }
    fn list(&self, dir: &Key) -> Result<Vec<DirEntry>> {
        todo!()
    }
    fn read_link(&self, key: &Key) -> Result<Vec<u8>> {
        todo!()
    }
    fn create_dir(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        todo!()
    }
    fn create_symlink(&self, key: &Key, target: &[u8], creator: &Creator) -> Result<Stat> {
        todo!()
    }
    fn create_special(&self, key: &Key, kind: FileKind, mode: u32, rdev: u64, creator: &Creator) -> Result<Stat> {
        todo!()
    }
    fn reserve(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        todo!()
    }
    fn commit_reserved(&self, key: &Key, id: ObjectId) -> Result<Stat> {
        todo!()
    }
    fn link(&self, from: &Key, to: &Key) -> Result<Stat> {
        todo!()
    }
    fn remove(&self, key: &Key, expect: &Precondition) -> Result<()> {
        todo!()
    }
    fn remove_dir(&self, key: &Key) -> Result<()> {
        todo!()
    }
    fn rename(&self, from: &Key, to: &Key, how: &Rename) -> Result<Stat> {
        todo!()
    }
    fn sync_dir(&self, dir: &Key) -> Result<()> {
        todo!()
    }
    fn set_attr(&self, key: &Key, attr: &SetAttr) -> Result<Stat> {
        todo!()
    }
    fn get_xattr(&self, key: &Key, name: &OsStr) -> Result<Vec<u8>> {
        todo!()
    }
    fn list_xattrs(&self, key: &Key) -> Result<Vec<std::ffi::OsString>> {
        todo!()
    }
    fn set_xattr(&self, key: &Key, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        todo!()
    }
    fn remove_xattr(&self, key: &Key, name: &OsStr) -> Result<()> {
        todo!()
    }
    fn open(&self, key: &Key) -> Result<Opened> {
        todo!()
    }
    fn commit(
        &self,
        key: &Key,
        staged: Staged,
        how: &Commit,
        creator: &Creator,
    ) -> std::result::Result<Stat, (Error, Staged)> {
        todo!()
    }
    fn append(&self, key: &Key, staged: &Staged, from: u64, how: &Commit) -> Result<Stat> {
        todo!()
    }
    fn generations(&self, key: &Key) -> Result<Vec<GenerationInfo>> {
        todo!()
    }
    fn histories(&self, dir: &Key) -> Result<Vec<Key>> {
        todo!()
    }
    fn open_generation(&self, key: &Key, generation: Generation) -> Result<Opened> {
        todo!()
    }
    fn drop_generation(&self, key: &Key, generation: Generation) -> Result<()> {
        todo!()
    }
    fn put_record(&self, path: &Key, bytes: &[u8]) -> Result<()> {
        todo!()
    }
    fn keep_staged(&self, path: &Key, staged: Staged) -> std::result::Result<(), (Error, Staged)> {
        todo!()
    }
    fn open_record(&self, path: &Key) -> Result<File> {
        todo!()
    }
    fn list_records(&self, dir: &Key) -> Result<Vec<Key>> {
        todo!()
    }
    fn remove_record(&self, path: &Key) -> Result<()> {
        todo!()
    }
    fn stat_fs(&self) -> Result<FsStat> {
        todo!()
    }
    fn take_abandoned(&self) -> Result<Vec<Abandoned>> {
        todo!()
    }
    fn repair(&self, abandoned: &Abandoned) -> Result<bool> {
        todo!()
    }
    fn watch(&self, sink: ChangeSink) -> Result<Option<Box<dyn Watch>>> {
        todo!()
    }
}
