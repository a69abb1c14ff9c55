//! Progress on stderr: a bar on a terminal, otherwise a line every 10 s. A thread of its own
//! looks at it, so that who works need not.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::print_error;

const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How far something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes so far.
    pub bytes: u64,
    /// Keys so far.
    pub keys: u64,
    /// Bytes in all, if that is known.
    pub total: Option<u64>,
}

/// Runs `work` and shows meanwhile what `look` sees.
pub fn shown<R>(look: impl Fn() -> Seen + Send, work: impl FnOnce() -> R) -> R {
    let (working, done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if io::stderr().is_terminal() {
                bar(&look, &done);
            } else {
                lines(&look, &done);
            }
        });
        let result = work();
        // Hanging up is what ends the thread.
        drop(working);
        result
    })
}

fn is_over(done: &Receiver<()>, wait: Duration) -> bool {
    !matches!(done.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
}

fn lines(look: &dyn Fn() -> Seen, done: &Receiver<()>) {
    while !is_over(done, LINE_EVERY) {
        let Seen { bytes, keys, total } = look();
        let of = total
            .map(|total| format!(" of {total}"))
            .unwrap_or_default();
        print_error(&format!("{bytes}{of} bytes, {keys} keys"));
    }
}

fn bar(look: &dyn Fn() -> Seen, done: &Receiver<()>) {
    // indicatif leaves colours out when NO_COLOR is set.
    let bar = ProgressBar::no_length();
    let mut had_total = None;
    while !is_over(done, BAR_EVERY) {
        let Seen { bytes, keys, total } = look();
        if had_total != Some(total.is_some()) {
            had_total = Some(total.is_some());
            bar.set_style(style(total.is_some()));
        }
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(bytes);
        bar.set_message(format!("{keys} keys"));
    }
    bar.finish_and_clear();
}

fn style(has_total: bool) -> ProgressStyle {
    let template = match has_total {
        true => "{spinner} [{bar:24}] {bytes} of {total_bytes}, {bytes_per_sec}, {msg}",
        false => "{spinner} {bytes}, {bytes_per_sec}, {msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
