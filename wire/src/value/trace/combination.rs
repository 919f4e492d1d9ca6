//! Combinations of choices, for a type that refuses several values together, such as an end before its beginning. They cannot all be
//! tried, so the likely ones come first: all values zero, all of them not zero, one of them different from the others.

/// How many combinations have the same choice everywhere, the one with the first choice not counted.
const UNIFORM: usize = 4;

/// How many choices of one decision are tried while the other decisions keep theirs.
const DIFFERENT: usize = 3;

/// In how many decisions one is different.
const DECISIONS: usize = 16;

/// Where the combinations with one different choice begin: the others have the first choice, or later the second one.
const ONE_OF_FIRST: usize = 1 + UNIFORM;
const ONE_OF_SECOND: usize = ONE_OF_FIRST + DIFFERENT * DECISIONS;
/// Where the combinations begin that count up, the first decision fastest.
const COUNTED: usize = ONE_OF_SECOND + DIFFERENT * DECISIONS;

/// How many combinations are tried.
const COMBINATIONS: usize = COUNTED + 512;

/// A combination, while the choices of its decisions are taken from it.
#[derive(Clone, Copy, Default)]
pub(super) struct Combination {
    number: usize,
    /// The number of the next decision.
    decision: usize,
    /// For a combination that counts up: the part that is left for the next decisions.
    left: usize,
}

impl Combination {
    pub(super) fn new(number: usize) -> Self {
        Self { number, decision: 0, left: number.saturating_sub(COUNTED) }
    }

    /// The choice of the next decision, of so many; none if there are none.
    pub(super) fn choice(&mut self, of: usize) -> Option<usize> {
        let decision = self.decision;
        self.decision += 1;
        let choice = match self.number {
            number @ ..ONE_OF_FIRST => number,
            number @ ONE_OF_FIRST..COUNTED => {
                let first = number < ONE_OF_SECOND;
                let number = number - if first { ONE_OF_FIRST } else { ONE_OF_SECOND };
                let different = number % DIFFERENT;
                match (number / DIFFERENT == decision, first) {
                    (false, true) => 0,
                    (false, false) => 1,
                    (true, true) => 1 + different,
                    // The second choice is what the others have.
                    (true, false) => [0, 2, 3][different],
                }
            }
            _ => {
                let choice = self.left.checked_rem(of)?;
                self.left /= of;
                choice
            }
        };
        choice.checked_rem(of)
    }

    /// The number of the combination to be tried next, after all choices were taken from this one.
    pub(super) fn next(self) -> Option<usize> {
        let Self { number, decision: decisions, left } = self;
        let next = number + 1;
        let next = match number {
            _ if left > 0 => return None,
            ..ONE_OF_FIRST | COUNTED.. => next,
            ONE_OF_FIRST..ONE_OF_SECOND if next >= ONE_OF_FIRST + DIFFERENT * decisions => ONE_OF_SECOND,
            ONE_OF_SECOND..COUNTED if next >= ONE_OF_SECOND + DIFFERENT * decisions => COUNTED,
            _ => next,
        };
        (next < COMBINATIONS).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decisions: usize, of: usize) -> Vec<Vec<usize>> {
        let mut all = Vec::new();
        let mut next = Some(0);
        while let Some(number) = next {
            let mut combination = Combination::new(number);
            let choices = (0..decisions).map(|_| combination.choice(of).unwrap()).collect();
            next = combination.next();
            all.push(choices);
        }
        all
    }

    #[test]
    fn the_likely_combinations_come_first() {
        let all = all(3, 5);
        assert_eq!(all[..3], [[0, 0, 0], [1, 1, 1], [2, 2, 2]]);
        let place = |combination: [usize; 3]| all.iter().position(|other| *other == combination).unwrap();
        assert!(place([0, 0, 1]) < 30 && place([1, 1, 0]) < 30 && place([1, 0, 1]) < 30);
    }

    #[test]
    fn few_combinations_are_all_tried() {
        for (decisions, of) in [(0, 1), (1, 1), (1, 60), (2, 18), (3, 8), (8, 2)] {
            let all = all(decisions, of);
            let different: std::collections::HashSet<_> = all.iter().collect();
            assert_eq!(different.len(), of.pow(u32::try_from(decisions).unwrap()), "{decisions} of {of}");
        }
    }

    #[test]
    fn there_are_not_too_many_combinations() {
        assert!(all(40, 40).len() <= COMBINATIONS);
        assert_eq!(Combination::new(0).choice(0), None);
    }
}
