//! Which links a partition cuts.

use super::super::random::Random;
use super::Shape;

/// The directed links, from and to, that a partition of this shape cuts among `servers`, in the order in which these are drawn.
pub(in crate::sim) fn cut_links(
    shape: Shape,
    servers: usize,
    victim: usize,
    random: &mut Random,
) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..servers).filter(|server| *server != victim).collect();
    random.shuffle(&mut order);
    order.insert(0, victim);
    let place = |server: usize| order.iter().position(|at| *at == server).unwrap_or(0);
    // Of all sides that the victim can be on, the largest without a majority is the most telling.
    let minority = (servers.max(3) - 1) / 2;
    let others = minority.max(2) - 1;
    let side =
        if random.chance(0.5) { minority } else { random.range(1, (servers as u64).max(2) - 1) as usize };
    let half = servers / 2;
    let mut drawn: Vec<bool> = (0..servers * servers).map(|_| random.chance(0.3)).collect();
    if !drawn.iter().any(|cut| *cut) {
        drawn.fill(true);
    }
    let is_cut = |from: usize, to: usize| {
        let (a, b) = (place(from), place(to));
        let (low, high) = (a.min(b), a.max(b));
        match shape {
            Shape::Isolate => low == 0,
            Shape::Moving => (a <= others) != (b <= others),
            Shape::Split => (a < side) != (b < side),
            Shape::Mute => a == 0,
            Shape::Deaf => b == 0,
            Shape::Directed => drawn[from * servers + to],
            Shape::Pairs => drawn[low * servers + high],
            // The victim is the bridge.
            Shape::Bridge => low != 0 && (a <= half) != (b <= half),
            Shape::Ring => {
                let distance = (high - low).min(servers - (high - low));
                distance > servers.div_ceil(4)
            }
        }
    };
    let pairs = (0..servers).flat_map(|from| (0..servers).map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to && is_cut(*from, *to)).collect()
}
