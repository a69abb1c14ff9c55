//! What is asked of a server and answered alike by all: help, containers by themselves,
//! channels nobody listens to, clients that there are not.

use super::{Group, Recipe};
use crate::dice::Dice;
use crate::line::{Line, line};

/// Sometimes a word too many, or a subcommand that there is not.
fn alone(d: &mut Dice, container: &str) -> Line {
    let made = line(container);
    match d.between(0, 3) {
        0 => made.word("NOSUCH").word(d.value()),
        1 => made.word("HELP").word("more"),
        _ => made,
    }
}

pub const GROUP: Group = Group {
    name: "server",
    recipes: &[
        Recipe::new("ACL", 1, |d| alone(d, "ACL")),
        Recipe::new("ACL|HELP", 1, |_| line("ACL HELP")),
        Recipe::new("CLIENT", 1, |d| alone(d, "CLIENT")),
        Recipe::new("CLIENT|HELP", 1, |_| line("CLIENT HELP")),
        Recipe::new("CLIENT|GETREDIR", 1, |_| line("CLIENT GETREDIR")),
        Recipe::new("CLIENT|NO-EVICT", 1, |d| {
            line("CLIENT NO-EVICT").word(d.pick(&["on", "OFF", "x"]))
        }),
        Recipe::new("CLIENT|UNBLOCK", 1, |d| {
            let made = line("CLIENT UNBLOCK").word(d.pick(&["999999", "x", "-1"]));
            made.words(d.pick(&[&[][..], &["ERROR"], &["TIMEOUT"], &["x"], &["x", "y"]]))
        }),
        Recipe::new("CLIENT|UNPAUSE", 1, |_| line("CLIENT UNPAUSE")),
        Recipe::new("CONFIG", 1, |d| alone(d, "CONFIG")),
        Recipe::new("CONFIG|HELP", 1, |_| line("CONFIG HELP")),
        Recipe::new("CONFIG|RESETSTAT", 1, |_| line("CONFIG RESETSTAT")),
        Recipe::new("FUNCTION", 1, |d| alone(d, "FUNCTION")),
        Recipe::new("FUNCTION|HELP", 1, |_| line("FUNCTION HELP")),
        Recipe::new("FUNCTION|KILL", 1, |_| line("FUNCTION KILL")),
        Recipe::new("OBJECT", 1, |d| alone(d, "OBJECT")),
        Recipe::new("PUBLISH", 2, |d| {
            line("PUBLISH").word(d.member()).word(d.value())
        }),
        Recipe::new("PUBSUB", 1, |d| alone(d, "PUBSUB")),
        Recipe::new("PUBSUB|HELP", 1, |_| line("PUBSUB HELP")),
        Recipe::new("PUBSUB|CHANNELS", 1, |d| {
            line("PUBSUB CHANNELS").words(d.pick(&[&[][..], &["*"], &["a", "b"]]))
        }),
        Recipe::new("PUBSUB|NUMPAT", 1, |_| line("PUBSUB NUMPAT")),
        Recipe::new("PUBSUB|NUMSUB", 1, |d| {
            line("PUBSUB NUMSUB").words([d.member(), d.member()])
        }),
        Recipe::new("PUBSUB|SHARDCHANNELS", 1, |_| line("PUBSUB SHARDCHANNELS")),
        Recipe::new("PUBSUB|SHARDNUMSUB", 1, |d| {
            line("PUBSUB SHARDNUMSUB").word(d.member())
        }),
        Recipe::new("SCRIPT", 1, |d| alone(d, "SCRIPT")),
        Recipe::new("SCRIPT|HELP", 1, |_| line("SCRIPT HELP")),
        Recipe::new("SCRIPT|KILL", 1, |_| line("SCRIPT KILL")),
        Recipe::new("SLOWLOG", 1, |d| alone(d, "SLOWLOG")),
        Recipe::new("SLOWLOG|HELP", 1, |_| line("SLOWLOG HELP")),
        Recipe::new("SLOWLOG|RESET", 1, |_| line("SLOWLOG RESET")),
        Recipe::new("SPUBLISH", 1, |d| {
            line("SPUBLISH").word(d.member()).word(d.value())
        }),
        Recipe::new("WAIT", 2, |d| {
            line("WAIT")
                .word(d.pick(&["0", "-1", "x"]))
                .word(d.pick(&["0", "10", "-1", "x"]))
        }),
        Recipe::new("XGROUP", 1, |d| alone(d, "XGROUP")),
        Recipe::new("XGROUP|HELP", 1, |_| line("XGROUP HELP")),
        Recipe::new("XINFO", 1, |d| alone(d, "XINFO")),
        Recipe::new("XINFO|HELP", 1, |_| line("XINFO HELP")),
    ],
};
