//! Writing results to stdout and errors to stderr.

use std::io::{self, BufWriter, StdoutLock, Write};

use super::exit::ExitStatus;

/// Stdout, buffered; flushed by [`finish`].
pub type Output = BufWriter<StdoutLock<'static>>;

/// Stdout for one command.
pub fn stdout() -> Output {
    BufWriter::new(io::stdout().lock())
}

/// Ends a command whose writes went as `written` says. A reader that closed
/// the pipe (`| head`) has what it wanted.
pub fn finish(mut out: Output, written: io::Result<()>, status: ExitStatus) -> ExitStatus {
    match written.and_then(|()| out.flush()) {
        Ok(()) => status,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => status,
        Err(error) => {
            fail(
                &format!("cannot write to stdout: {error}"),
                "check where the output goes",
            );
            ExitStatus::Failed
        }
    }
}

/// Prints an error with what to do about it.
pub fn fail(what: &str, help: &str) {
    print_error(&format!("error: {what}\n  help: {help}"));
}

/// Prints an error that is laid out already.
pub fn print_error(text: &str) {
    // Nobody is left to tell if stderr is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes one JSON value on one line.
///
/// # Errors
/// Those of `out`.
pub fn write_json(out: &mut impl Write, value: &serde_json::Value) -> io::Result<()> {
    writeln!(out, "{value}")
}
