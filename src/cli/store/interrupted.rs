//! Work that Ctrl-C and SIGTERM end in order: what it made so far is removed by itself.

use std::io;

use crate::cli::exit::ExitStatus;
use crate::cli::output::fail;
use crate::cli::progress::{Seen, shown};
use crate::cli::signals::Signals;
use crate::store::backup::Progress;

/// Runs `work` in a thread of its own, shows how far it is, and tells it to stop when
/// somebody asks the process to.
///
/// # Errors
/// It could not be begun: how the command ends.
pub fn interruptible<R: Send>(
    progress: &Progress,
    work: impl FnOnce() -> R + Send,
) -> Result<R, ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| refused(&error))?;
    let _guard = runtime.enter();
    let mut signals = Signals::listen().map_err(|error| refused(&error))?;
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let look = || Seen {
        bytes: progress.bytes(),
        keys: progress.keys(),
        total: Some(progress.bytes_in_all()).filter(|bytes| *bytes > 0),
    };
    let result = shown(look, || {
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let result = work();
                // Nobody waits for it any more if the process is to stop.
                let _ = done.send(());
                result
            });
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = &mut is_done => return,
                        () = signals.stop() => progress.stop(),
                    }
                }
            });
            worker.join()
        })
    });
    result.map_err(|panic| std::panic::resume_unwind(panic))
}

fn refused(error: &io::Error) -> ExitStatus {
    fail(
        &format!("cannot listen for signals: {error}"),
        "check this user's limits on threads and files",
    );
    ExitStatus::Failed
}
