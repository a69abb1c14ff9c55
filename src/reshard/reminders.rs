//! Proxies that were late when a switch ended are told again and again how it
//! ended, until they confirm it or the job ends. Nobody waits for them.
//!
//! A proxy that is never reached takes the route from its record on the servers.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cutover::{Call, ProxyIndex};
use super::proxies::{Fleet, ProxyError, SwitchTerms, repeat_pause};

/// Tasks that remind; they end when this is dropped.
#[derive(Debug)]
pub struct Reminders {
    asked: Vec<(ProxyIndex, String)>,
    left: watch::Receiver<BTreeMap<String, String>>,
    _tasks: JoinSet<()>,
}

impl Reminders {
    /// Nobody is late.
    pub fn none() -> Self {
        Self {
            asked: Vec::new(),
            left: watch::channel(BTreeMap::new()).1,
            _tasks: JoinSet::new(),
        }
    }

    /// Asks each of `late` for `call` until it is confirmed.
    pub fn begin(
        fleet: &Fleet,
        call: Call,
        terms: &SwitchTerms,
        late: impl IntoIterator<Item = ProxyIndex>,
    ) -> Self {
        let (left_in, left) = watch::channel(BTreeMap::new());
        let mut tasks = JoinSet::new();
        let mut asked = Vec::new();
        for proxy in late {
            let Some((pool, mut connection)) = fleet.connection(proxy) else {
                continue;
            };
            let name = fleet.name(proxy);
            asked.push((proxy, name.clone()));
            left_in.send_modify(|left| {
                left.insert(name.clone(), String::new());
            });
            let (terms, left_in) = (terms.clone(), left_in.clone());
            tasks.spawn(async move {
                let mut attempt = 1;
                loop {
                    tokio::time::sleep(repeat_pause(attempt)).await;
                    match connection.switch(&pool, call, &terms).await {
                        // A refused abort means that nothing is pending there.
                        Err(ProxyError::Refused { .. }) if call == Call::Abort => break,
                        Err(error) => {
                            left_in.send_modify(|left| {
                                left.insert(name.clone(), error.to_string());
                            });
                        }
                        Ok(_) => break,
                    }
                    attempt = attempt.saturating_add(1);
                }
                tracing::info!(
                    proxy = name,
                    call = call.name(),
                    "a late proxy has confirmed"
                );
                left_in.send_modify(|left| {
                    left.remove(&name);
                });
            });
        }
        Self {
            asked,
            left,
            _tasks: tasks,
        }
    }

    /// Whether there was nobody to remind.
    pub fn asked_nobody(&self) -> bool {
        self.asked.is_empty()
    }

    /// Who has confirmed by now.
    pub fn confirmed(&self) -> Vec<ProxyIndex> {
        let left = self.left.borrow();
        let asked = self.asked.iter();
        let confirmed = asked.filter(|(_, name)| !left.contains_key(name));
        confirmed.map(|(proxy, _)| *proxy).collect()
    }

    /// Who has not confirmed yet, with what each said last.
    pub fn left(&self) -> BTreeMap<String, String> {
        self.left.borrow().clone()
    }
}
