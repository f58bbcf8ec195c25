//! Pure: the life of an endpoint as steps, and what undoes them.
//!
//! ```text
//!   ADD   Reserve -> Link -> Rules -> Programs -> PodSide -> HostSide -> Seal
//!   undo  DeleteLink -> ForgetPrograms -> RemoveRules -> Free           (as far as the ADD came)
//! ```
//!
//! Safe order: what lets packets pass comes last (`HostSide` brings the link up), after rules and
//! programs; and goes first, so that no packet passes an interface whose programs are gone. DEL is
//! the whole undo, and carries on past errors.

/// A step of ADD.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// Addresses, in memory and on disk.
    Reserve,
    /// The pair of links, down on both sides.
    Link,
    /// Identity and rules in the kernel's maps.
    Rules,
    /// Programs on the host side.
    Programs,
    /// Addresses and routes in the pod; its side up.
    PodSide,
    /// Routes to the pod; the host side up. From here on packets pass.
    HostSide,
    /// The record says that all of this is true.
    Seal,
}

/// What undoes steps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Undo {
    /// The pair of links, and with it addresses, routes and attachments.
    DeleteLink,
    /// The pins of the attachments.
    ForgetPrograms,
    /// The endpoint in the maps; connections end.
    RemoveRules,
    /// The addresses and the record.
    Free,
}

/// The steps of ADD, in order.
pub const ADD: [Step; 7] =
    [Step::Reserve, Step::Link, Step::Rules, Step::Programs, Step::PodSide, Step::HostSide, Step::Seal];

/// The steps of DEL, in order.
pub const DEL: [Undo; 4] = [Undo::DeleteLink, Undo::ForgetPrograms, Undo::RemoveRules, Undo::Free];

impl Undo {
    /// The first step after which there is something for this to undo. A step that failed may have
    /// been half done, so its own undo is due as well.
    pub const fn undoes(self) -> Step {
        match self {
            Self::DeleteLink => Step::Link,
            Self::ForgetPrograms => Step::Programs,
            Self::RemoveRules => Step::Rules,
            Self::Free => Step::Reserve,
        }
    }
}

/// What is due when `failed` did not succeed.
pub fn after_failure(failed: Step) -> impl Iterator<Item = Undo> {
    DEL.into_iter().filter(move |undo| undo.undoes() <= failed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a step leaves behind, and what an undo takes away.
    fn made(step: Step) -> Option<Undo> {
        match step {
            Step::Reserve => Some(Undo::Free),
            Step::Link => Some(Undo::DeleteLink),
            Step::Rules => Some(Undo::RemoveRules),
            Step::Programs => Some(Undo::ForgetPrograms),
            // Part of the link, or of the record.
            Step::PodSide | Step::HostSide | Step::Seal => None,
        }
    }

    #[test]
    fn undo_of_any_prefix_restores_the_start() {
        for (at, failed) in ADD.into_iter().enumerate() {
            let mut there: BTreeSet<Undo> = ADD[..=at].iter().filter_map(|step| made(*step)).collect();
            for undo in after_failure(failed) {
                there.remove(&undo);
            }
            assert!(there.is_empty(), "after {failed:?}: {there:?} is left");
        }
    }

    #[test]
    fn packets_stop_before_enforcement_goes_and_pass_after_it_has_come() {
        let place = |step| ADD.iter().position(|it| *it == step);
        assert!(place(Step::Rules) < place(Step::Programs));
        assert!(place(Step::Programs) < place(Step::HostSide));
        assert_eq!(DEL[0], Undo::DeleteLink);
        assert_eq!(DEL[3], Undo::Free);
    }
}
