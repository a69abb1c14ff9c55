//! What is said to the connection itself.

use super::{Group, Recipe};
use crate::line::line;

pub const GROUP: Group = Group {
    name: "connection",
    recipes: &[
        Recipe::new("PING", 6, |_| line("PING")),
        Recipe::new("PING", 4, |d| line("PING").word(d.value())),
        Recipe::new("ECHO", 6, |d| line("ECHO").word(d.value())),
        Recipe::new("TIME", 3, |_| line("TIME")),
        Recipe::new("LASTSAVE", 1, |_| line("LASTSAVE")),
        Recipe::new("CLIENT|SETNAME", 3, |d| {
            let name = d.pick(&["name", "", "with blank", "x\n", "other-name", "\u{e9}"]);
            line("CLIENT SETNAME").word(name)
        }),
        Recipe::new("CLIENT|GETNAME", 4, |_| line("CLIENT GETNAME")),
        Recipe::new("RESET", 1, |_| line("RESET")),
        Recipe::new("ECHO", 3, |d| {
            let name = d.pick(&[
                "NOSUCH",
                "nosuch",
                "GETT",
                "",
                "HSET\r\n",
                "object",
                "CLIENT|ID",
            ]);
            let words = [d.value(), d.member()];
            line("ECHO x").then(crate::line::Line::named(name).words(words))
        }),
        Recipe::new("ECHO", 1, |d| {
            let container = d.pick(&["OBJECT", "CLIENT"]);
            let wrong = line(container).word("NOSUCH").word(d.member());
            line("ECHO x").then(wrong)
        }),
    ],
};
