//! Situations in which a packet meets the programs: who sends to whom, at which hook, under which
//! policies. Each has the words by which `docs/packets.md` names it.

use datapath_abi::{identity::CLASS_ANY, policy::Direction, reason::DropReason};

use crate::{
    host::{A, B, C, Host, NODE, REMOTE, ROUTER, WORLD},
    lab::{At, Lab},
    rules::{Rule, allow},
};

/// A situation.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// In words.
    pub who: &'static str,
    /// Where packets meet a program.
    pub at: At,
    /// Who sends.
    pub from: Host,
    /// To whom.
    pub to: Host,
    /// Which policies there are.
    pub policy: Policy,
}

/// Policies of a situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Both ends are open.
    Open,
    /// One end is isolated in a direction; rules admit everybody, with all protocols and ports, or nobody.
    Isolated(Host, Direction, Admits),
    /// The receiver of the packets is isolated, and may open connections.
    Answers,
}

/// Whom an isolated end admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Everybody, with all protocols and ports.
    Everybody,
    /// Nobody.
    Nobody,
}

use Admits::{Everybody, Nobody};
use Direction::{Egress, Ingress};
use Policy::{Answers, Isolated, Open};

/// Between open pods.
pub const OPEN: Scene = Scene { who: "open pod to open pod", at: At::From(A), from: A, to: B, policy: Open };
/// To an isolated pod that admits it.
pub const ADMITTED: Scene =
    Scene { who: "pod to isolated pod, admitted", policy: Isolated(B, Ingress, Everybody), ..OPEN };
/// To an isolated pod that does not.
pub const REFUSED: Scene =
    Scene { who: "pod to isolated pod, not admitted", policy: Isolated(B, Ingress, Nobody), ..OPEN };

/// From an open pod to the outside.
pub const OUT_OPEN: Scene = Scene { who: "open pod to the outside", to: WORLD, ..OPEN };
/// From an isolated one, admitted.
pub const OUT: Scene =
    Scene { who: "isolated pod to the outside, admitted", policy: Isolated(A, Egress, Everybody), ..OUT_OPEN };
/// From an isolated one, not admitted.
pub const OUT_REFUSED: Scene =
    Scene { who: "isolated pod to the outside, not admitted", policy: Isolated(A, Egress, Nobody), ..OUT_OPEN };

/// From the outside to an open pod.
pub const IN_OPEN: Scene = Scene { who: "outside to open pod", at: At::To(B, WORLD), from: WORLD, to: B, policy: Open };
/// To an isolated one that admits it.
pub const IN: Scene =
    Scene { who: "outside to isolated pod, admitted", policy: Isolated(B, Ingress, Everybody), ..IN_OPEN };
/// To an isolated one that does not.
pub const IN_REFUSED: Scene =
    Scene { who: "outside to isolated pod, not admitted", policy: Isolated(B, Ingress, Nobody), ..IN_OPEN };

/// From a process of the node to an isolated pod that admits nobody.
pub const FROM_NODE: Scene = Scene {
    who: "the node to isolated pod",
    at: At::To(B, NODE),
    from: NODE,
    to: B,
    policy: Isolated(B, Ingress, Nobody),
};
/// From an isolated pod to its node, which it may not reach.
pub const TO_NODE: Scene =
    Scene { who: "isolated pod to its node, not admitted", to: NODE, policy: Isolated(A, Egress, Nobody), ..OPEN };
/// From an open pod to its node.
pub const TO_NODE_OPEN: Scene = Scene { who: "open pod to its node", to: NODE, ..OPEN };

/// To a pod that may open connections and is isolated otherwise: what comes back from another pod.
pub const BACK: Scene = Scene { who: "pod back to isolated pod", at: At::From(B), from: B, to: A, policy: Answers };
/// The same from the outside.
pub const BACK_IN: Scene =
    Scene { who: "outside back to isolated pod", at: At::To(A, WORLD), from: WORLD, to: A, policy: Answers };
/// The same from a router outside, which is no end of the connection.
pub const BACK_ROUTER: Scene =
    Scene { who: "router outside to isolated pod", at: At::To(A, ROUTER), from: ROUTER, ..BACK_IN };
/// The same from a pod of another node that is no end of the connection.
pub const BACK_REMOTE: Scene =
    Scene { who: "pod of another node to isolated pod", at: At::To(A, REMOTE), from: REMOTE, ..BACK_IN };
/// The same from the node.
pub const BACK_NODE: Scene = Scene { who: "the node to isolated pod", at: At::To(A, NODE), from: NODE, ..BACK_IN };
/// The same from a pod that is no end of the connection.
pub const BACK_OTHER: Scene = Scene { who: "another pod to isolated pod", at: At::From(C), from: C, ..BACK };

/// All in which somebody begins something.
pub const FIRST: [Scene; 10] =
    [OPEN, ADMITTED, REFUSED, OUT_OPEN, OUT, OUT_REFUSED, IN_OPEN, IN, IN_REFUSED, FROM_NODE];
/// In which no policy is asked.
pub const FREE: [Scene; 4] = [OPEN, OUT_OPEN, IN_OPEN, FROM_NODE];
/// In which a policy is asked and admits.
pub const ASKED: [Scene; 3] = [ADMITTED, OUT, IN];
/// In which what begins something is let in.
pub const ADMITTING: [Scene; 7] = [OPEN, ADMITTED, OUT_OPEN, OUT, IN_OPEN, IN, FROM_NODE];
/// In which a policy is asked, whatever it says.
pub const ISOLATED: [Scene; 6] = [ADMITTED, REFUSED, OUT, OUT_REFUSED, IN, IN_REFUSED];

/// Sets of situations with a name.
pub const SETS: [(&str, &[Scene]); 5] = [
    ("anywhere", &FIRST),
    ("no rules asked", &FREE),
    ("rules asked", &ISOLATED),
    ("rules admit", &ASKED),
    ("let in", &ADMITTING),
];

impl Scene {
    /// With other words, for one that is like another but for what is sent.
    #[must_use]
    pub const fn named(mut self, who: &'static str) -> Self {
        self.who = who;
        self
    }

    /// Puts the policies into force.
    pub fn set(&self, lab: &mut Lab) {
        let everybody = [Rule::identity(CLASS_ANY, allow(1, 1))];
        match self.policy {
            Open => {}
            Isolated(pod, direction, admits) => {
                lab.isolate(&pod, direction, if admits == Everybody { &everybody } else { &[] });
            }
            Answers => {
                lab.isolate(&self.to, Egress, &everybody);
                lab.isolate(&self.to, Ingress, &[]);
            }
        }
    }

    /// Why the first packet of a connection is refused here, if it is.
    pub fn refuses(&self) -> Option<(DropReason, Direction)> {
        match self.policy {
            Isolated(_, Ingress, Nobody) if self.from == NODE => None,
            Isolated(_, direction, Nobody) => Some((DropReason::DefaultDeny, direction)),
            Answers if self.from != NODE => Some((DropReason::DefaultDeny, Ingress)),
            _ => None,
        }
    }
}
