//! Other invocations of the binary: short commands, and the reshard job.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::process::{Process, Signal};
use super::wait::wait_for;

/// `keyferry` with `args`, run to its end.
pub fn keyferry_command<A: AsRef<std::ffi::OsStr>>(args: &[A]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyferry"))
        .args(args)
        .output()
        .expect("the binary under test")
}

/// A `keyferry reshard start` in the background.
pub struct Job {
    process: Process,
    state: PathBuf,
    planted: Option<String>,
}

impl Job {
    /// Starts a job with its journal in `state`; `args` follow
    /// `reshard start --state DIR`.
    pub fn start<A: AsRef<std::ffi::OsStr>>(state: &Path, log_dir: &Path, args: &[A]) -> Job {
        Job::start_planted(state, log_dir, args, None)
    }

    /// The same with a mistake that it makes on purpose.
    pub fn start_planted<A: AsRef<std::ffi::OsStr>>(
        state: &Path,
        log_dir: &Path,
        args: &[A],
        planted: Option<&str>,
    ) -> Job {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
        command
            .args(["reshard", "start", "--state"])
            .arg(state)
            .args(args);
        if let Some(mistake) = planted {
            command.env("KEYFERRY_TEST_PLANTED", mistake);
        }
        Job {
            process: Process::spawn("reshard", "keyferry", log_dir, &mut command),
            state: state.to_owned(),
            planted: planted.map(str::to_owned),
        }
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits for its end: exit code, stdout, stderr.
    pub fn finish(&mut self, limit: Duration) -> (i32, String, String) {
        let code = self.process.wait_code(limit);
        (code, self.process.stdout(), self.process.stderr())
    }

    /// `reshard VERB --state DIR`, with more `args`.
    pub fn verb(&self, verb: &str, args: &[&str]) -> Output {
        self.verb_command(verb, args)
            .output()
            .expect("the binary under test")
    }

    fn verb_command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
        command
            .args(["reshard", verb, "--state"])
            .arg(&self.state)
            .args(args);
        if let Some(mistake) = &self.planted {
            command.env("KEYFERRY_TEST_PLANTED", mistake);
        }
        command
    }

    /// The same without waiting for its end.
    pub fn verb_in_background(&self, verb: &str, args: &[&str]) -> Process {
        let mut command = self.verb_command(verb, args);
        let dir = self.state.parent().expect("it is below the stage's");
        Process::spawn(verb, "keyferry", dir, &mut command)
    }

    /// The state that `reshard status --json` names, if it answers.
    pub fn state(&self) -> Option<String> {
        let output = self.verb("status", &["--json"]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(json["state"].as_str()?.to_owned())
    }

    /// The same of this very process: an earlier one may have left a state, too.
    fn state_now(&self) -> Option<String> {
        let output = self.verb("status", &["--json"]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let is_at_work = json["running"].as_bool()? && json["doing"] != "starting";
        is_at_work.then(|| json["state"].as_str().map(str::to_owned))?
    }

    /// Waits until the state is one of `wanted`; panics when the job ends before.
    pub fn wait_state(&mut self, wanted: &[&str], limit: Duration) -> String {
        let what = format!("the job's state is one of {wanted:?}");
        wait_for(&what, limit, || {
            let state = self
                .state_now()
                .filter(|state| wanted.contains(&state.as_str()));
            if state.is_none()
                && let Some(status) = self.process.try_wait()
            {
                // It may have got there and ended between the two looks.
                let last = self.state().unwrap_or_default();
                assert!(
                    wanted.contains(&last.as_str()),
                    "the job ended ({status}) as {last:?} before it was one of {wanted:?}\n{}{}",
                    self.process.stdout(),
                    self.process.stderr()
                );
                return Some(last);
            }
            state
        })
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.process.signal(Signal::Kill);
        self.process.wait(Duration::from_secs(10));
    }
}
