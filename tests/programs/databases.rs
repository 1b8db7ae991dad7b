//! Databases, which sync often and keep their files open.

use crate::common::{Store, sh, tool};

#[test]
fn sqlite_keeps_its_databases_whole() {
    let store = Store::new();
    let mount = store.mount();
    tool("sqlite3");
    for mode in ["delete", "truncate", "persist", "wal"] {
        // Several processes at a time, which relies on its locks and, with WAL, on shared memory.
        mount.sh(&format!(
            "sqlite3 {mode}.db 'pragma journal_mode={mode}; create table t (process, n, filler); create index i on t (n);' >/dev/null
             for p in 1 2 3; do (
               for n in $(seq 40); do
                 sqlite3 -cmd '.log stderr' -cmd '.timeout 60000' {mode}.db \"begin immediate; insert into t values ($p, $n, hex(randomblob(500))); commit;\"
               done ) &
             done
             failed=0; for job in $(jobs -p); do wait $job || failed=1; done; test $failed = 0
             test \"$(sqlite3 {mode}.db 'select count(*), count(distinct process * 1000 + n) from t')\" = '120|120'
             test \"$(sqlite3 {mode}.db 'pragma integrity_check')\" = ok
             sqlite3 {mode}.db 'begin; delete from t where n % 2; rollback; begin; delete from t where n % 2; commit; vacuum;'
             test \"$(sqlite3 {mode}.db 'select count(*) from t; pragma integrity_check' | tr '\\n' ' ')\" = '60 ok '"
        ));
    }
    mount.unmount();
    for mode in ["delete", "truncate", "persist", "wal"] {
        let said = sh(store.path(), &format!("sqlite3 {mode}.db 'select count(*) from t; pragma integrity_check'"));
        assert_eq!(said, "60\nok\n", "{mode}");
    }
    assert!(store.conflicts().is_empty(), "{:?}", store.conflicts());
}

#[test]
fn sqlite_holds_one_connection_open_for_long() {
    let store = Store::new();
    let mount = store.mount();
    mount.sh("for mode in delete wal; do
           { echo \"pragma journal_mode=$mode; create table t (n);\"
             for n in $(seq 300); do echo \"insert into t values ($n);\"; done
             echo 'select count(*) from t; pragma integrity_check;'
           } | sqlite3 $mode.db | tail -2 | tr '\\n' ' ' | grep -qx '300 ok '
         done");
    mount.unmount();
    for mode in ["delete", "wal"] {
        assert_eq!(sh(store.path(), &format!("sqlite3 {mode}.db 'select sum(n) from t'")), "45150\n");
    }
}
