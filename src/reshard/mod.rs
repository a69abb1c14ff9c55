//! The job that moves keys to another layout: plan, copy, follow, verify, switch.
//!
//! ```text
//! plan.rs        from layout, to layout, who moves: pure, printed before it runs
//! prepare.rs     directory, journal, proxies' word -> a job that can run
//! job.rs         its socket, preflight and report; run.rs and run/ drive it;
//!                serve.rs answers questions while it waits
//!   state.rs       its life as a machine; journal.rs, record.rs, history.rs remember it
//!   moving.rs      the seam to mover/, which copies, follows and compares
//!   switching.rs   drives cutover.rs, the switch as a machine, over proxies.rs
//!   fence.rs       what the old shards refuse from the switch on; fencing.rs does it,
//!                  logins.rs keeps the passwords, bypass.rs finds who goes round it,
//!                  lookout.rs every 10 s
//!   reminders.rs   proxies that were late are told again
//!   recovery.rs    finishes a switch whose process died
//!   recopy.rs      a source whose stream is lost: copying, following, verifying again
//! steps.rs       a job for each old shard, one after another (--step shard)
//! announce.rs    proxies know that the job works on the pool
//! purging.rs     moved keys are deleted only while the switch holds
//! control.rs     the socket on which status, switch, cancel... of a running job are asked
//! ```
//! Invariant: what the journal does not hold did not happen. Every step with an
//! effect outside is recorded before it (intent) or is repeatable.

mod announce;
mod bypass;
pub mod clearing;
pub mod clock;
pub mod control;
pub mod cutover;
pub mod ending;
#[cfg(test)]
mod fakes;
pub mod fence;
pub mod fencing;
pub mod history;
pub mod job;
pub mod job_error;
pub mod journal;
pub mod logins;
mod lookout;
pub mod mover;
pub mod moving;
pub mod plan;
pub mod prepare;
pub mod proxies;
pub mod purging;
mod recopy;
pub mod record;
pub mod recovery;
mod refreshes;
mod reminders;
pub mod report;
pub mod run;
mod serve;
pub mod state;
pub mod state_dir;
pub mod status;
pub mod steps;
pub mod stop;
pub mod switching;
