//! How far down each thing stands: below everything that leads to it, but for what leads back.

use super::Link;

/// The rank of each thing, from 0 at the top.
pub(super) fn ranks(count: usize, links: &[Link], start: usize) -> Vec<usize> {
    let mut ways: Vec<Vec<usize>> = vec![Vec::new(); count];
    for link in links {
        ways[link.from].push(link.to);
    }
    let (order, mut ways) = without_cycles(ways, start);
    let mut ranks = vec![0; count];
    // From what has nothing before it to what leads nowhere.
    for from in order.into_iter().rev() {
        for to in std::mem::take(&mut ways[from]) {
            ranks[to] = ranks[to].max(ranks[from] + 1);
        }
    }
    ranks
}

/// The same ways, with those turned round that lead back to where one came from; and the things, each after all that it leads to.
fn without_cycles(ways: Vec<Vec<usize>>, start: usize) -> (Vec<usize>, Vec<Vec<usize>>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        /// On the way from the start to where we are.
        Open,
        Done,
    }
    let count = ways.len();
    let mut seen = vec![Seen::No; count];
    let (mut order, mut forward) = (Vec::with_capacity(count), vec![Vec::new(); count]);
    for root in std::iter::once(start).chain(0..count) {
        if seen.get(root) != Some(&Seen::No) {
            continue;
        }
        seen[root] = Seen::Open;
        // A thing, and how many of its ways were followed.
        let mut path = vec![(root, 0)];
        while let Some((from, followed)) = path.last_mut() {
            let from = *from;
            let Some(&to) = ways[from].get(*followed) else {
                seen[from] = Seen::Done;
                order.push(from);
                path.pop();
                continue;
            };
            *followed += 1;
            match seen[to] {
                Seen::Open => forward[to].push(from),
                Seen::Done => forward[from].push(to),
                Seen::No => {
                    forward[from].push(to);
                    seen[to] = Seen::Open;
                    path.push((to, 0));
                }
            }
        }
    }
    (order, forward)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_stands_below_what_leads_to_it_but_for_what_leads_back() {
        let link = |from, to| Link { from, to, words: Default::default() };
        let links = [link(0, 1), link(1, 2), link(2, 0), link(0, 2), link(2, 3), link(4, 3)];
        assert_eq!(ranks(5, &links, 0), [0, 1, 2, 3, 0]);
        assert_eq!(ranks(3, &[link(0, 1), link(1, 0), link(1, 2)], 1), [1, 0, 1]);
        assert_eq!(ranks(1, &[], 0), [0]);
    }
}
