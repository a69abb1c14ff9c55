//! The scenarios: each is right as it stands, and shows some planted mistakes.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;

use super::admin_link::Rule;
use super::history::find;
use super::workload::LoadOptions;
use super::world::{Planted, World};
use crate::support::{Job, Shape, wait_until};

/// Replies before, between and after the steps.
pub const REPLIES: u64 = 6_000;

/// How long a step of the job may take to come.
pub const STEP_LIMIT: Duration = Duration::from_secs(20);

/// These want a whole machine: one at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A scenario: a whole world from its start to its checks.
pub type Scenario = fn(&mut Rng, Planted) -> World;

/// Two servers become three, and hash and distribution change: most keys move. (The
/// keys of a kind differ in few bytes: not every hash spreads them.)
pub fn most_keys_move(planted: Planted) -> World {
    let old = Shape("murmur", "modula", &[0, 1]);
    let new = Shape("md5", "ketama", &[0, 1, 2]);
    World::new(&old, &new, planted, "")
}

/// A load that leaves no pause between requests.
pub fn dense() -> LoadOptions {
    LoadOptions {
        pause_us_max: 500,
        ..LoadOptions::default()
    }
}

/// A world with its load, and a job that waits for its switch.
pub fn ready(rng: &mut Rng, planted: Planted, load: LoadOptions, args: &[&str]) -> (World, Job) {
    ready_in(most_keys_move(planted), rng, load, args)
}

/// The same in this world.
pub fn ready_in(mut world: World, rng: &mut Rng, load: LoadOptions, args: &[&str]) -> (World, Job) {
    world.start_load(load, rng);
    world.let_work(REPLIES);
    let mut job = world.start_job(&[&["--switch", "manual"], args].concat());
    world.wait_state(&mut job, &["verified"]);
    (world, job)
}

/// Goes on behind the switch, and ends the job.
pub fn to_the_end(world: &mut World, job: &mut Job) {
    end_with(world, job, true);
}

/// The same; `faultless`: no client may have seen an error.
pub fn end_with(world: &mut World, job: &mut Job, faultless: bool) {
    world.let_work(REPLIES);
    if world.wait_state(job, &["switched"]).is_some() {
        let complete = job.verb("complete", &["--yes", "--purge"]);
        if !complete.status.success() {
            let text = String::from_utf8_lossy(&complete.stderr).into_owned();
            find(&mut world.findings, "job", format!("not completed: {text}"));
        }
        world.let_work(REPLIES / 4);
    }
    world.check(faultless);
    job.kill();
}

/// Load, start, switch, go on, complete.
pub fn cutover_under_load(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &["--hold", "2s"]);
    if world.findings.is_empty() && world.switch(&job) {
        to_the_end(&mut world, &mut job);
    } else {
        world.check(true);
        job.kill();
    }
    world
}

/// The new server sleeps while the switch begins, so that what the old ones did
/// last is not applied for a while. (A fence of logins would have them tried on it.)
pub fn target_asleep_at_the_switch(rng: &mut Rng, planted: Planted) -> World {
    let args = ["--hold", "10s", "--fence", "proxies"];
    let (mut world, mut job) = ready(rng, planted, dense(), &args);
    world.stage.servers[2].pause();
    world.let_work(REPLIES * 3);
    let mut switch = job.verb_in_background("switch", &["--yes"]);
    // Every proxy holds; now the marker is on its way.
    for link in &world.links {
        link.wait_seen("hold", STEP_LIMIT);
    }
    // The length of the fault.
    std::thread::sleep(Duration::from_millis(200));
    world.stage.servers[2].resume();
    if switch.wait(STEP_LIMIT).success() {
        to_the_end(&mut world, &mut job);
    } else {
        find(
            &mut world.findings,
            "job",
            format!("no switch: {}", switch.stderr()),
        );
        world.check(true);
        job.kill();
    }
    world
}

/// The new server sleeps for a moment while the job follows.
pub fn target_naps_while_followed(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &["--hold", "10s"]);
    for _ in 0..3 {
        world.stage.servers[2].pause();
        world.let_work(REPLIES / 4);
        world.stage.servers[2].resume();
        world.let_work(REPLIES / 4);
    }
    world.switch(&job);
    to_the_end(&mut world, &mut job);
    world
}

/// One proxy hears of the commit long after the other.
pub fn one_commit_is_late(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &["--hold", "10s"]);
    world.links[1].at("commit", Rule::Stall);
    let mut switch = job.verb_in_background("switch", &["--yes"]);
    let epoch = world.stage.proxies[1].epoch_and_gate().0;
    wait_until("the first proxy is committed", STEP_LIMIT, || {
        world.stage.proxies[0].epoch_and_gate().0 > epoch
    });
    // Clients of the first write to the new owners meanwhile.
    world.let_work(REPLIES / 4);
    world.links[1].release("commit");
    switch.wait(STEP_LIMIT);
    to_the_end(&mut world, &mut job);
    world
}

/// The job dies when its commits are on their way; one of them arrives only after
/// the next start of the job has looked at the proxies. (With a fence of logins the
/// record of the route on the servers says the same as the journal.)
pub fn job_killed_with_commits_under_way(rng: &mut Rng, planted: Planted) -> World {
    let args = ["--switch", "manual", "--hold", "10s", "--fence", "proxies"];
    let (mut world, mut job) = ready(rng, planted, dense(), &args[2..]);
    for link in &world.links {
        link.at("commit", Rule::Stall);
    }
    let mut switch = job.verb_in_background("switch", &["--yes"]);
    for link in &world.links {
        link.wait_seen("commit", STEP_LIMIT);
    }
    job.kill();
    switch.wait(STEP_LIMIT);
    // If the next start goes back, its word is late at the first proxy.
    for link in &world.links {
        link.at("abort", Rule::Stall);
    }
    let mut job = world.start_job(&args);
    let mut went_back = false;
    wait_until("the next start goes one way", STEP_LIMIT, || {
        went_back = world.links[0].wait_seen("abort", Duration::from_millis(50));
        went_back || job.state().as_deref() == Some("switched")
    });
    let epoch = world.stage.proxies[0].epoch_and_gate().0;
    println!(
        "the next start goes {}",
        if went_back { "back" } else { "forward" }
    );
    world.links[0].release("commit");
    if went_back {
        wait_until("the late commit arrived", STEP_LIMIT, || {
            world.stage.proxies[0].epoch_and_gate() != (epoch, "fenced".to_owned())
                && world.stage.proxies[0].epoch_and_gate().1 == "open"
        });
    }
    for link in &world.links {
        link.release("abort");
    }
    if went_back {
        let proxies = &world.stage.proxies;
        wait_until("the second proxy was aborted", STEP_LIMIT, || {
            proxies[1].epoch_and_gate().1 == "open"
        });
        world.links[1].release("commit");
        world.let_work(REPLIES);
        println!("in the end: {:?}", world.epochs());
        let epochs: Vec<u64> = proxies.iter().map(|one| one.epoch_and_gate().0).collect();
        if epochs[0] != epochs[1] {
            let text = format!("the proxies route by epochs {epochs:?} at once");
            find(&mut world.findings, "epochs", text);
        }
        world.check(false);
        job.kill();
    } else {
        world.links[1].release("commit");
        to_the_end(&mut world, &mut job);
    }
    world
}

/// A bit of the journal's last record flips while the job is down. What that record
/// says is not believed: the file is refused, or it goes on from the record before.
pub fn journal_is_damaged(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, LoadOptions::default(), &[]);
    job.kill();
    let mut files = fs::read_dir(world.stage.state_dir()).expect("the job's directory");
    let journal = files
        .find_map(|file| {
            let path = file.expect("an entry").path();
            let starts_right = fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"KFJOURNL"));
            starts_right.then_some(path)
        })
        .expect("a journal");
    let mut bytes = fs::read(&journal).expect("it was just there");
    // The last digit of the last record: `verified`, with the number of keys.
    let at = bytes.iter().rposition(u8::is_ascii_digit);
    let at = at.expect("records have numbers");
    bytes[at] ^= 1;
    fs::write(&journal, &bytes).expect("it is ours");
    let seen = job.state();
    println!("the job with a damaged record is {seen:?}");
    if seen.as_deref() == Some("verified") {
        let text = "a record whose checksum is wrong was believed".to_owned();
        find(&mut world.findings, "journal", text);
    }
    world.check(true);
    world
}
