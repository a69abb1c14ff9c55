//! Progress of a scan on stderr: a bar on a terminal, otherwise a line every
//! 10 s. A thread of its own looks at the meter, so that reading need not.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::print_error;
use crate::rdbfile::source::Meter;

const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Runs `work` and shows meanwhile how far `meter` is of `total` bytes.
pub fn shown<R>(meter: &Meter, total: Option<u64>, work: impl FnOnce() -> R) -> R {
    let (working, done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if io::stderr().is_terminal() {
                bar(meter, total, &done);
            } else {
                lines(meter, total, &done);
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

fn lines(meter: &Meter, total: Option<u64>, done: &Receiver<()>) {
    while !is_over(done, LINE_EVERY) {
        let (bytes, keys) = (meter.bytes(), meter.keys());
        let of = total
            .map(|total| format!(" of {total}"))
            .unwrap_or_default();
        print_error(&format!("read {bytes}{of} bytes, {keys} keys"));
    }
}

fn bar(meter: &Meter, total: Option<u64>, done: &Receiver<()>) {
    // indicatif leaves colours out when NO_COLOR is set.
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    let template = match total {
        Some(_) => "{spinner} [{bar:24}] {bytes} of {total_bytes}, {bytes_per_sec}, {msg}",
        None => "{spinner} {bytes}, {bytes_per_sec}, {msg}",
    };
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while !is_over(done, BAR_EVERY) {
        bar.set_position(meter.bytes());
        bar.set_message(format!("{} keys", meter.keys()));
    }
    bar.finish_and_clear();
}
