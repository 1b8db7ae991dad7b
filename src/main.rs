//! The `sepia` command. All of it is in [`sepia::cli`].

fn main() -> std::process::ExitCode {
    sepia::cli::main()
}
