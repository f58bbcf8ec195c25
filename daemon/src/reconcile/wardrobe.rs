//! Pure: one copy of labels that many pods wear. Each object brings its own; the pods of a workload have the same.

use std::collections::HashSet;

use policy::model::Labels;

/// Fewer sets than this are not looked through.
const FEW: usize = 1024;

/// Labels, each set once.
#[derive(Debug, Default)]
pub(super) struct Wardrobe {
    known: HashSet<Labels>,
    /// How many there were, in use, when they were looked through last.
    used: usize,
}

impl Wardrobe {
    /// The copy that everybody has.
    pub(super) fn share(&mut self, labels: &Labels) -> Labels {
        if let Some(known) = self.known.get(labels) {
            return known.clone();
        }
        if self.known.len() >= FEW.max(2 * self.used) {
            self.known.retain(Labels::is_shared);
            self.used = self.known.len();
        }
        self.known.insert(labels.clone());
        labels.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_wears_any_more_is_thrown_away() {
        let mut wardrobe = Wardrobe::default();
        let labels = |number: usize| Labels::default().with("app", &number.to_string());
        let worn: Vec<Labels> = (0..10).map(|number| wardrobe.share(&labels(number))).collect();
        for number in 0..3 * FEW {
            wardrobe.share(&labels(number));
        }
        assert!(wardrobe.known.len() <= FEW + 10, "{}", wardrobe.known.len());
        assert!(worn.iter().all(|labels| wardrobe.known.contains(labels)));
        assert!(worn[3].is(&wardrobe.share(&labels(3))));
    }
}
