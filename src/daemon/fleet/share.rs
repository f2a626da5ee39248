//! Who owns which target? Rendezvous hashing: each member has a score for each target, and the highest one owns it.
//! When a member goes, its own targets move and no other; when one comes, it gets its share and nothing else moves.
//! Pure, and the same on every host and in every version.

/// A stable hash of a name.
pub fn hash(text: &str) -> u64 {
    // FNV-1a, with a finish that spreads what differs in the last letter alone.
    let folded = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    mix(folded)
}

/// The finish of SplitMix64: each bit of the answer depends on each bit of the input.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Which of the members (by the hashes of their names) owns the target of that hash; `None` where there is none.
pub fn owner(target: u64, members: &[u64]) -> Option<usize> {
    // The score of two members is the same only where their names are.
    (0..members.len()).max_by_key(|index| (mix(target ^ members[*index]), members[*index]))
}

/// Hashes in a sketch.
const SKETCH: usize = 8;

/// A sketch of a set of names: their least hashes. Two sets with much in common share some, two with nothing none.
pub fn sketch<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut least: Vec<u64> = Vec::with_capacity(SKETCH + 1);
    for hash in names.map(hash) {
        if least.len() == SKETCH && least.last().is_some_and(|most| hash >= *most) {
            continue;
        }
        if let Err(at) = least.binary_search(&hash) {
            least.insert(at, hash);
            least.truncate(SKETCH);
        }
    }
    least.iter().map(|hash| format!("{hash:016x}")).collect::<Vec<_>>().join(" ")
}

/// Whether two sketches have something in common; of an empty one nobody can tell.
pub fn is_kin(a: &str, b: &str) -> bool {
    a.is_empty() || b.is_empty() || a.split(' ').any(|hash| b.split(' ').any(|other| other == hash))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(count: usize) -> Vec<u64> {
        (0..count).map(|n| hash(&format!("node-{n}.example.com"))).collect()
    }

    #[test]
    fn a_name_has_the_same_hash_in_every_version() {
        assert_eq!((hash(""), hash("ci-deployer")), (0xf52a_15e9_a9b5_e89b, 0x5fd3_18bf_0019_97dd));
    }

    #[test]
    fn shares_are_even() {
        for (targets, count, most) in [(100_000usize, 30usize, 1.1), (10_000, 3, 1.05)] {
            let members = members(count);
            let mut shares = vec![0usize; count];
            for n in 0..targets {
                shares[owner(hash(&format!("team-{}.target-{n}", n % 7)), &members).unwrap()] += 1;
            }
            let largest = *shares.iter().max().unwrap();
            assert!(largest * count < (targets as f64 * most) as usize, "{shares:?}");
        }
    }

    #[test]
    fn two_schedules_with_much_in_common_are_kin_and_two_with_nothing_are_not() {
        let names = |from: usize, to: usize| (from..to).map(|n| format!("target-{n}")).collect::<Vec<_>>();
        let of = |names: &[String]| sketch(names.iter().map(String::as_str));
        let (ours, edited, others) = (of(&names(0, 1000)), of(&names(3, 1004)), of(&names(5000, 6000)));
        assert!(is_kin(&ours, &edited) && is_kin(&ours, &ours));
        assert!(!is_kin(&ours, &others));
        assert!(is_kin(&ours, ""), "of a member that says nothing nobody can tell");
        assert_eq!(of(&names(0, 3)).split(' ').count(), 3);
    }

    proptest! {
        #[test]
        fn when_a_member_goes_no_target_moves_but_its_own(count in 2usize..30, gone in 0usize..30, target in any::<u64>()) {
            let all = members(count);
            let gone = gone % count;
            let left: Vec<u64> = all.iter().copied().enumerate().filter(|(index, _)| *index != gone).map(|(_, m)| m).collect();
            let before = all[owner(target, &all).unwrap()];
            let after = left[owner(target, &left).unwrap()];
            prop_assert!(before == all[gone] || before == after);
        }

        #[test]
        fn the_order_in_which_members_are_known_does_not_matter(count in 1usize..12, target in any::<u64>()) {
            let all = members(count);
            let mut turned = all.clone();
            turned.reverse();
            prop_assert_eq!(all[owner(target, &all).unwrap()], turned[owner(target, &turned).unwrap()]);
        }
    }
}
