//! TCP: each end has the state of RFC 9293, section 3.3.2. A segment moves its sender, which must have
//! been in a state to send it, and its receiver, which is taken to get it.

use datapath_abi::conntrack::CtState;

use super::{Effect, End, Row, Rows};
use crate::packet::{ACK, FIN, RST, SYN};

/// RFC 9293, section 3.3.2. CLOSED is LISTEN here: whether somebody listens is found out by the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    /// By RST, sent or received.
    Closed,
}

use State::{
    CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent, TimeWait,
};

/// Both ends.
#[derive(Clone, Debug)]
pub(super) struct Tcp {
    ends: [State; 2],
    /// Has said that it will send no more.
    fin: [bool; 2],
    reset: Option<Reset>,
}

/// The connection is reset, unless that is doubted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reset {
    by: [bool; 2],
    doubted: bool,
}

impl Tcp {
    /// The first segment that is seen, and whether it is one from the middle.
    pub(super) fn first(flags: u8, rows: &mut Rows<'_>) -> Option<(Self, bool)> {
        if flags & RST != 0 {
            // "All data in the incoming segment is discarded" (RFC 9293, 3.10.7.1): to nobody's knowledge.
            return None;
        }
        let opens = flags & (SYN | ACK | FIN) == SYN;
        if !opens && !rows.apply(Row::Midstream) {
            return None;
        }
        // Of a connection that was there before: its initiator, for us, has closed its half.
        let fin = [flags & FIN != 0, false];
        Some((Self { ends: [SynSent, Listen], fin, reset: None }, !opens))
    }

    pub(super) fn next(&mut self, from: End, flags: u8, rows: &mut Rows<'_>) -> Effect {
        let bare_syn = flags & (SYN | ACK | FIN | RST) == SYN;
        if bare_syn && self.may_begin_anew(rows) {
            return Effect::Anew;
        }
        if flags & RST != 0 {
            let mut by = self.reset.map_or([false; 2], |reset| reset.by);
            by[from as usize] = true;
            self.reset = Some(Reset { by, doubted: false });
            // Makes a difference only if the RST turns out to be none.
            if flags & FIN != 0 && rows.apply(Row::ResetDoubted) {
                self.says_fin(from);
            }
            return Effect::Same;
        }
        if let Some(reset) = &mut self.reset {
            // An end that has sent RST is CLOSED, and sends nothing else: so its RST was not what
            // it seemed. What the other end sends was under way.
            if reset.by[from as usize] && !reset.doubted && rows.apply(Row::ResetDoubted) {
                reset.doubted = true;
            }
            if !reset.doubted {
                if flags & FIN != 0 {
                    self.says_fin(from);
                }
                return Effect::Same;
            }
        }
        if flags & SYN != 0 {
            self.syn(from, flags);
        } else if self.ends[from as usize] == Listen && rows.apply(Row::AnyAnswer) {
            // As if it had a SYN.
            self.syn(from, SYN | ACK);
        }
        if flags & ACK != 0 {
            self.ack(from, rows);
        }
        if flags & FIN != 0 {
            self.fin(from, rows);
        }
        Effect::Same
    }

    /// RFC 9293, 3.10.7.1 (CLOSED), 3.10.7.4 (TIME-WAIT): a new connection may begin.
    fn may_begin_anew(&self, rows: &mut Rows<'_>) -> bool {
        match self.state() {
            CtState::Reset | CtState::TimeWait => true,
            CtState::Closing => rows.apply(Row::SynWhileClosing),
            CtState::New | CtState::SynReceived | CtState::Established => false,
        }
    }

    /// 3.10.7.2 and 3.10.7.3. A SYN in any later state changes nothing (3.10.7.4, fourth).
    fn syn(&mut self, from: End, flags: u8) {
        let (sender, receiver) = (self.ends[from as usize], self.ends[from.other() as usize]);
        let after = match (sender, receiver, flags & ACK != 0) {
            (Listen, SynSent, true) => Some((SynReceived, Established)),
            // They cross: each has sent its own before it gets the other's.
            (Listen, SynSent, false) => Some((SynReceived, SynReceived)),
            _ => None,
        };
        if let Some((sender, receiver)) = after {
            self.ends[from as usize] = sender;
            self.ends[from.other() as usize] = receiver;
        }
    }

    /// 3.10.7.4, fifth.
    fn ack(&mut self, from: End, rows: &mut Rows<'_>) {
        let receiver = &mut self.ends[from.other() as usize];
        *receiver = match *receiver {
            SynReceived => Established,
            FinWait1 => FinWait2,
            Closing => TimeWait,
            LastAck => Closed,
            other => other,
        };
        if from == End::Initiator && self.ends == [SynReceived, Established] && rows.apply(Row::CrossedSyn) {
            self.ends[0] = Established;
        }
    }

    fn says_fin(&mut self, from: End) {
        self.fin[from as usize] = true;
    }

    /// 3.10.4 for the sender, 3.10.7.4, eighth, for the receiver.
    fn fin(&mut self, from: End, rows: &mut Rows<'_>) {
        let early = [Listen, SynSent];
        if early.iter().any(|state| self.ends.contains(state)) && !rows.apply(Row::EarlyFin) {
            return;
        }
        self.says_fin(from);
        let (here, there) = (from as usize, from.other() as usize);
        self.ends[here] = match self.ends[here] {
            CloseWait => LastAck,
            Established | SynReceived => FinWait1,
            other => other,
        };
        self.ends[there] = match self.ends[there] {
            Established | SynReceived => CloseWait,
            FinWait1 => Closing,
            FinWait2 => TimeWait,
            other => other,
        };
    }

    pub(super) fn state(&self) -> CtState {
        match (self.reset, self.fin) {
            (Some(Reset { doubted: false, .. }), _) => return CtState::Reset,
            (_, [true, true]) => return CtState::TimeWait,
            // Not reset after all, but not to be trusted with a long life.
            (Some(_), _) | (_, [true, false] | [false, true]) => return CtState::Closing,
            (None, [false, false]) => {}
        }
        match self.ends {
            [_, Listen] => CtState::New,
            [Established, Established] => CtState::Established,
            _ => CtState::SynReceived,
        }
    }
}
