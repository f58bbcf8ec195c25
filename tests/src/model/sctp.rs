//! SCTP: each end has the state of RFC 9260, section 4, as far as the chunks that pass by show it.

use datapath_abi::conntrack::CtState;

use super::{Effect, End, Row, Rows};
use crate::packet::{SCTP_ABORT, SCTP_COOKIE_ECHO, SCTP_INIT, SCTP_INIT_ACK, SCTP_SHUTDOWN, SCTP_SHUTDOWN_COMPLETE};

/// RFC 9260, section 3.3.12 and 3.3.9.
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_ACK: u8 = 8;

/// How far the association is, for both ends together: its chunks go to and fro.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The initiator is in COOKIE-WAIT.
    CookieWait,
    /// INIT ACK is under way to it; the responder keeps nothing.
    CookieOffered,
    /// The initiator is in COOKIE-ECHOED, the responder ESTABLISHED.
    CookieEchoed,
    Established,
    /// SHUTDOWN-SENT and SHUTDOWN-RECEIVED.
    Shutdown,
    /// One is in SHUTDOWN-ACK-SENT.
    ShutdownAckSent,
    /// Over.
    Complete,
    Aborted,
}

#[derive(Clone, Debug)]
pub(super) struct Sctp(State);

impl Sctp {
    /// The first packet that is seen, and whether it is one from the middle.
    pub(super) fn first(chunks: &[u8], rows: &mut Rows<'_>) -> Option<(Self, bool)> {
        let chunk = chunks[0];
        if chunk != SCTP_INIT && !rows.apply(Row::Midstream) {
            return None;
        }
        Some((Self(State::CookieWait), chunk != SCTP_INIT))
    }

    pub(super) fn next(&mut self, from: End, chunks: &[u8], rows: &mut Rows<'_>) -> Effect {
        if chunks.len() > 1 && rows.apply(Row::FirstChunk) {
            return self.chunk(from, chunks[0], rows);
        }
        for chunk in chunks {
            if self.chunk(from, *chunk, rows) == Effect::Anew {
                return Effect::Anew;
            }
        }
        Effect::Same
    }

    fn chunk(&mut self, from: End, chunk: u8, rows: &mut Rows<'_>) -> Effect {
        use State::{
            Aborted, Complete, CookieEchoed, CookieOffered, CookieWait, Established, Shutdown, ShutdownAckSent,
        };
        self.0 = match (self.0, from, chunk) {
            // 5.1: a new association; 5.2.2 and 9.2: INIT in the other states begins none. A restart
            // (5.2.4) goes on as the same association.
            (Complete | Aborted, _, SCTP_INIT) => return Effect::Anew,
            (Shutdown | ShutdownAckSent, _, SCTP_INIT) if rows.apply(Row::InitWhileClosing) => return Effect::Anew,
            // 9.1.
            (_, _, SCTP_ABORT) => Aborted,
            // 9.2.
            (ShutdownAckSent | Complete, _, SCTP_SHUTDOWN_COMPLETE) => Complete,
            (_, _, SCTP_SHUTDOWN_COMPLETE) if rows.apply(Row::StrayComplete) => Complete,
            (over @ (Complete | Aborted), ..) => over,
            (CookieEchoed | Established, _, SCTP_SHUTDOWN) => Shutdown,
            (Shutdown, _, SHUTDOWN_ACK) => ShutdownAckSent,
            // 5.1.
            (CookieWait, End::Responder, SCTP_INIT_ACK) => CookieOffered,
            // 5.2.1: both have sent INIT, and both answer.
            (CookieWait, End::Responder, SCTP_INIT) => CookieOffered,
            (CookieWait, End::Responder, _) if rows.apply(Row::AnyChunk) => CookieOffered,
            // Sent again (5.1, B): the answer was lost behind us.
            (CookieOffered, End::Initiator, SCTP_INIT) => CookieOffered,
            (CookieOffered, End::Initiator, SCTP_COOKIE_ECHO) if rows.apply(Row::CookieEcho) => Established,
            (CookieOffered, End::Initiator, SCTP_COOKIE_ECHO) => CookieEchoed,
            (CookieOffered, End::Initiator, _) if rows.apply(Row::AnyChunk) => Established,
            (CookieEchoed, End::Responder, COOKIE_ACK) => Established,
            (same, _, _) => same,
        };
        Effect::Same
    }

    pub(super) fn state(&self) -> CtState {
        match self.0 {
            State::CookieWait => CtState::New,
            State::CookieOffered | State::CookieEchoed => CtState::SynReceived,
            State::Established => CtState::Established,
            State::Shutdown | State::ShutdownAckSent => CtState::Closing,
            State::Complete => CtState::TimeWait,
            State::Aborted => CtState::Reset,
        }
    }
}
