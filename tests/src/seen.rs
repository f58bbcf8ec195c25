//! What a program has done with one packet, and the words to say what it should have done.
//!
//! Whatever moved and was not expected fails the test: when a [`Seen`] goes out of scope, every
//! counter that moved and every event must have been explained.

use std::{collections::VecDeque, path::PathBuf};

use datapath_abi::{
    addr::Addr,
    endpoint::{HOST_MAC, RulesPtr},
    event::{DIRECTION_NONE, EndReason, EventKind, FlowEvent, Hook, STAGED_NOT_ASKED},
    maps::Scalar,
    policy::Direction,
    reason::DropReason,
};

use crate::{
    count::{Change, Count},
    host::Host,
    lab::At,
    packet::{self, Packet},
    prog::Ran,
};

/// `TC_ACT_UNSPEC`: on to the stack.
pub const NEXT: i32 = -1;
/// `TC_ACT_SHOT`: dropped.
pub const SHOT: i32 = 2;
/// `TC_ACT_REDIRECT`: into another interface.
pub const REDIRECT: i32 = 7;

/// The effect of one packet.
#[derive(Debug)]
pub struct Seen {
    at: Option<At>,
    sent: Vec<u8>,
    packet: Option<Packet>,
    ran: Ran,
    change: Change,
    events: VecDeque<FlowEvent>,
    last: Option<FlowEvent>,
    becomes: Option<Packet>,
}

impl Seen {
    pub(crate) fn new(
        at: At,
        sent: &[u8],
        packet: Option<Packet>,
        ran: Ran,
        change: Change,
        events: Vec<FlowEvent>,
    ) -> Self {
        Self {
            at: Some(at),
            sent: sent.to_vec(),
            packet,
            ran,
            change,
            events: events.into(),
            last: None,
            becomes: None,
        }
    }

    pub(crate) fn of_sweep(ran: Ran, change: Change, events: Vec<FlowEvent>) -> Self {
        Self { at: None, sent: Vec::new(), packet: None, ran, change, events: events.into(), last: None, becomes: None }
    }

    /// Where it goes on, it does so as this one: it was translated.
    #[must_use]
    pub fn becomes(mut self, packet: &Packet) -> Self {
        self.becomes = Some(packet.clone());
        self
    }

    /// Its bytes where it goes on.
    fn goes_on_as(&self) -> Vec<u8> {
        self.becomes.as_ref().map_or_else(|| self.sent.clone(), Packet::bytes)
    }

    /// It goes to the host's stack, or through it to the pod, unchanged unless it [`becomes`](Self::becomes) another one.
    pub fn passes(mut self) -> Self {
        self.verdict(NEXT, "to pass");
        self.same_bytes(&self.goes_on_as());
        let hook = self.hook();
        self.moved(Count::Passed(hook));
        self
    }

    /// It goes on unchanged and is not counted: ARP.
    pub fn goes_on(self) -> Self {
        self.verdict(NEXT, "to go on");
        self.same_bytes(&self.sent.clone());
        self
    }

    /// It is handed to a pod of this node, as a router would.
    pub fn reaches(mut self, pod: &Host) -> Self {
        self.verdict(REDIRECT, &format!("to be handed to {}", pod.name));
        self.same_bytes(&packet::routed(&self.goes_on_as(), HOST_MAC, pod.mac));
        let hook = self.hook();
        self.moved(Count::Passed(hook));
        self
    }

    /// It is dropped, and no event tells of it.
    pub fn drops_quietly(mut self, reason: DropReason) -> Self {
        self.verdict(SHOT, &format!("to be dropped ({})", reason.name()));
        self.same_bytes(&self.sent.clone());
        let hook = self.hook();
        self.moved(Count::Dropped(hook, reason));
        self
    }

    /// It is dropped and reported; `direction` of the policy that refused.
    pub fn drops(self, reason: DropReason, direction: Option<Direction>) -> Self {
        let mut seen = self.drops_quietly(reason);
        let event = seen.event(EventKind::Dropped);
        seen.ensure(event.reason == reason as u8, &format!("an event with the reason {}", reason.name()));
        let wanted = direction.map_or(DIRECTION_NONE, |direction| direction as u8);
        seen.ensure(event.direction == wanted, &format!("an event with direction {wanted}"));
        seen.about_packet(&event);
        seen
    }

    /// A connection begins.
    pub fn opens(mut self) -> Self {
        let event = self.event(EventKind::Opened);
        self.ensure(event.reason == 0, "an event without a reason");
        self.ensure(event.direction == DIRECTION_NONE, "an event without a direction");
        self.about_packet(&event);
        self
    }

    /// A connection ends.
    pub fn closes(mut self, end: EndReason) -> Self {
        let event = self.event(EventKind::Closed);
        self.ensure(event.end == end as u8, &format!("a connection that ends by {end:?}"));
        self
    }

    /// A connection is reported as living.
    pub fn lives(mut self) -> Self {
        let event = self.event(EventKind::Active);
        self.ensure(event.end == 0, "a connection that has not ended");
        self
    }

    /// A scalar moved by one.
    pub fn bumps(mut self, scalar: Scalar) -> Self {
        self.explain(Count::Scalar(scalar), 0);
        self
    }

    /// Looks closer at the event that was named last.
    pub fn with(self, look: impl FnOnce(&FlowEvent)) -> Self {
        look(self.last.as_ref().expect("an event was named before"));
        self
    }

    /// Events that are not explained yet.
    pub fn events(&self) -> impl Iterator<Item = &FlowEvent> {
        self.events.iter()
    }

    /// Explains everything: for steps that only lead to what a test is about.
    pub fn whatever(mut self) {
        self.events.clear();
        self.change = Change::default();
    }

    /// The packet afterwards.
    pub fn bytes(&self) -> &[u8] {
        &self.ran.bytes
    }

    /// What the program returned.
    pub fn returned(&self) -> i32 {
        self.ran.verdict
    }

    /// Counters that moved and are not explained yet.
    pub fn change(&self) -> &Change {
        &self.change
    }

    fn hook(&self) -> Hook {
        self.at.expect("a packet was sent").hook()
    }

    fn verdict(&self, wanted: i32, what: &str) {
        self.ensure(self.ran.verdict == wanted, &format!("{what} (verdict {wanted})"));
    }

    fn same_bytes(&self, wanted: &[u8]) {
        let difference = packet::diff(wanted, &self.ran.bytes);
        self.ensure(difference.is_empty(), &format!("other bytes:\n{difference}"));
    }

    fn moved(&mut self, count: Count) {
        let bytes = (self.sent.len() - 14) as u64;
        self.explain(count, bytes);
    }

    fn explain(&mut self, count: Count, bytes: u64) {
        if let Err(error) = self.change.explain(count, 1, bytes) {
            self.fail(&error);
        }
    }

    /// The next event, which must be of this kind and without leftovers of others in it.
    fn event(&mut self, kind: EventKind) -> FlowEvent {
        let Some(event) = self.events.pop_front() else { self.fail(&format!("no event, wanted {kind:?}")) };
        self.ensure(event.kind == kind as u8, &format!("an event {kind:?}, got {event:?}"));
        self.ensure(event.pad == 0, "padding of zeroes");
        let of_packet = matches!(kind, EventKind::Opened | EventKind::Dropped);
        for (direction, rules) in event.rules.iter().enumerate() {
            let staged = (event.staged[direction], event.staged_cookie[direction]);
            let may = of_packet && RulesPtr(*rules).has(RulesPtr::HAS_STAGED);
            self.ensure(may || staged == (STAGED_NOT_ASKED, 0), &format!("no staged verdict: {event:?}"));
        }
        self.ensure(event.time_ns != 0 && event.created_ns != 0, "an event with times");
        self.explain(Count::Scalar(Scalar::EventsWritten), 0);
        self.last = Some(event);
        event
    }

    /// `Opened` and `Dropped` describe the packet.
    fn about_packet(&self, event: &FlowEvent) {
        let at = self.at.expect("a packet was sent");
        let bytes = (self.sent.len() - 14) as u64;
        self.ensure(event.hook == at.hook() as u8, "an event that names the hook");
        self.ensure(event.ifindex == at.context().ifindex, "an event that names the interface");
        self.ensure(event.packets == [1, 0] && event.bytes == [bytes, 0], "an event of one packet and its bytes");
        self.ensure(event.end == 0 && event.rtt_us == 0, "an event of no end");
        if let Some(packet) = self.becomes.as_ref().or(self.packet.as_ref()) {
            self.ensure(event.addr == packet.addr.map(Addr::from), "an event with the packet's addresses");
            if packet.is_readable() {
                self.ensure(event.tcp_flags == [packet.tcp_flags(), 0], "an event with the packet's TCP flags");
                self.ensure(event.proto == packet.proto(), "an event with the packet's protocol");
                self.ensure(event.port == packet.ports(), &format!("ports {:?}: {event:?}", packet.ports()));
            }
        }
    }

    #[track_caller]
    fn ensure(&self, holds: bool, wanted: &str) {
        if !holds {
            self.fail(&format!("wanted {wanted}"));
        }
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}", self.picture());
    }

    fn picture(&self) -> String {
        let mut text = format!("verdict {}, counters not explained: ", self.ran.verdict);
        text += &format!("{:?}\n", self.change.moved().collect::<Vec<_>>());
        for event in &self.events {
            text += &format!("event not explained: {event:?}\n");
        }
        if let Some(at) = self.at {
            text += &format!("at {at:?}\npacket {:?}\n", self.packet);
            let name = std::thread::current().name().unwrap_or("test").replace("::", "-");
            let path: PathBuf =
                [env!("CARGO_MANIFEST_DIR"), "..", "target", "pcap", &format!("{name}.pcap")].iter().collect();
            match packet::dump(&path, &[&self.sent, &self.ran.bytes]) {
                Ok(()) => text += &format!("before and after: {}\n", path.display()),
                Err(error) => text += &format!("no pcap at {}: {error}\n", path.display()),
            }
        }
        text
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let explained = self.change.is_empty() && self.events.is_empty();
        if !explained && !std::thread::panicking() {
            panic!("more happened than the test said\n{}", self.picture());
        }
    }
}
