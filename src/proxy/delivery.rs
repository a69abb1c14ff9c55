//! The last step of a reply: from a shard's bytes to the client that waits.

use slab::Slab;

use crate::upstream::pipe::Replies;

use super::client::{Client, Ending};
use super::core::{Chores, FULL_BYTES, Full, PartOf, PoolCore, Ticket};
use super::lanes::PipePlace;
use super::merge::Merges;
use super::parking::SpareParkings;
use super::spares::Spares;

/// What handing over a reply touches.
pub(super) struct Delivery<'a> {
    pub clients: &'a mut Slab<Client>,
    pub merges: &'a mut Merges,
    pub spare_outputs: &'a mut Spares,
    pub spare_parkings: &'a mut SpareParkings,
    pub chores: &'a mut Chores,
    pub full: &'a mut Vec<Full>,
    /// Bytes kept for one client before it is closed.
    pub kept_bytes_max: usize,
}

impl PoolCore {
    pub(super) fn delivery(&mut self) -> Delivery<'_> {
        self.delivery_beside_pipes().0
    }

    /// The same, and where the replies come from.
    #[inline]
    pub(super) fn delivery_beside_pipes(&mut self) -> (Delivery<'_>, &mut Slab<PipePlace>) {
        let delivery = Delivery {
            clients: &mut self.clients,
            merges: &mut self.merges,
            spare_outputs: &mut self.spare_outputs,
            spare_parkings: &mut self.spare_parkings,
            chores: &mut self.chores,
            full: &mut self.full,
            kept_bytes_max: self.config.limits.client_buffer_bytes_max,
        };
        (delivery, &mut self.pipes)
    }
}

impl Ticket {
    /// The ticket of the request that is `n` after this one in its batch.
    pub(super) fn after(self, n: u32) -> Self {
        Self {
            sequence: self.sequence.wrapping_add(n),
            ..self
        }
    }
}

impl Delivery<'_> {
    /// Hands over replies that came together.
    #[inline]
    pub fn many(&mut self, replies: Replies<'_, Ticket>) {
        let ticket = replies.ticket.after(replies.first);
        match ticket.part {
            None => self.hand_over(ticket, replies.count, replies.bytes),
            Some(part) => self.no_whole(ticket, part, &replies),
        }
    }

    /// Apart, so that what is usual stays one short piece of code.
    #[inline(never)]
    fn no_whole(&mut self, ticket: Ticket, part: PartOf, replies: &Replies<'_, Ticket>) {
        match part {
            PartOf::NO_REPLY => self.hand_over(ticket, replies.count, &[]),
            part => self.part(ticket, part, replies.bytes),
        }
    }

    /// Hands over one reply that we made.
    pub fn one(&mut self, ticket: Ticket, reply: &[u8]) {
        match ticket.part {
            None if ticket.is_of_nobody() => {} // its shard said nothing
            None => self.hand_over(ticket, 1, reply),
            Some(PartOf::NO_REPLY) => self.hand_over(ticket, 1, &[]),
            Some(part) => {
                self.fail_part(part);
                self.part(ticket, part, reply);
            }
        }
    }

    /// The shard of a part did not answer.
    pub fn fail_part(&mut self, of: PartOf) {
        if let Some(merge) = self.merges.get_mut(of.merge) {
            merge.fail();
        }
    }

    /// Its client is gone, or it is the answer to a request of ours.
    #[cold]
    fn let_go(&mut self, ticket: Ticket, bytes: &[u8]) {
        self.chores.failed_loads.extend(ticket.failed_load(bytes));
        self.chores.told_ids.extend(ticket.told_id(bytes));
        if let Some(pipe) = ticket.refused_login(bytes) {
            let words = String::from_utf8_lossy(bytes).trim_end().to_owned();
            self.chores.refused_logins.push((pipe, words));
        }
    }

    #[inline]
    fn hand_over(&mut self, ticket: Ticket, count: u32, bytes: &[u8]) {
        let Some(client) = client_of(self.clients, ticket) else {
            return self.let_go(ticket, bytes);
        };
        // One reply of any size may pass; a second one that nobody reads may not.
        if client.kept() > self.kept_bytes_max {
            client.overrun = true;
        } else {
            client.prepare_output(self.spare_outputs);
            client.prepare_parking(ticket.sequence, self.spare_parkings);
            client.reply(ticket.sequence, count, bytes);
            if client.unwritten() >= FULL_BYTES && !client.full {
                client.full = true;
                self.full.push(Full::Client(ticket.client));
            }
            client.return_parking(self.spare_parkings);
        }
        mark(self.chores, client, ticket.client);
    }

    /// One shard's share of a fan-out. A merge goes on without its client, so
    /// that its number stays taken until the last part is here.
    fn part(&mut self, ticket: Ticket, of: PartOf, reply: &[u8]) {
        let Some(merge) = self.merges.get_mut(of.merge) else {
            return;
        };
        let whole_of = merge.whole();
        let client = client_of(self.clients, ticket).filter(|client| !client.overrun);
        let Some(client) = client else {
            if merge.skip(of.part) {
                self.merges.end(of.merge);
                if let Some(whole_of) = whole_of {
                    self.part(ticket, whole_of, &[]);
                }
            }
            return;
        };
        let before = merge.bytes();
        let is_whole = merge.add(of.part, reply);
        client.collect(merge.bytes() - before);
        if client.kept() > self.kept_bytes_max.saturating_add(reply.len()) {
            client.overrun = true;
            mark(self.chores, client, ticket.client);
        }
        if !is_whole {
            return;
        }
        client.collected(merge.bytes());
        let mut whole = self.spare_outputs.take();
        merge.finish(&mut whole);
        match whole_of {
            None => {
                client.prepare_output(self.spare_outputs);
                client.prepare_parking(ticket.sequence, self.spare_parkings);
                client.reply(ticket.sequence, 1, &whole);
                client.return_parking(self.spare_parkings);
                if merge.ends_client() && client.ending == Ending::Open {
                    client.ending = Ending::Finishing;
                }
                mark(self.chores, client, ticket.client);
                self.merges.end(of.merge);
            }
            Some(whole_of) => {
                self.merges.end(of.merge);
                self.part(ticket, whole_of, &whole);
            }
        }
        self.spare_outputs.give(whole);
    }
}

#[inline]
fn client_of(clients: &mut Slab<Client>, ticket: Ticket) -> Option<&mut Client> {
    clients
        .get_mut(ticket.client as usize)
        .filter(|client| client.generation == ticket.generation)
}

#[inline]
fn mark(chores: &mut Chores, client: &mut Client, key: u32) {
    if !client.dirty {
        client.dirty = true;
        chores.write_clients.push(key);
    }
}
