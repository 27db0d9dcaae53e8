//! Random faults under load for as long as one likes: kills, freezes, cuts, lost tails, failovers. The
//! seed is printed; `TXTCORD_CHAOS_SEED` repeats the same choices.

use std::{
    cell::RefCell,
    env, thread,
    time::{Duration, Instant},
};

use crate::{
    check::holds,
    engine::{Engine, Keeps},
    load::Load,
    nodes::{CALM, Nodes, SETTLES, within},
    proxy::Way,
    support::*,
};

/// How long it lasts where nobody asks for more.
const SHORT: Duration = Duration::from_secs(12);

/// After this many acknowledged messages the load begins anew on empty files: what one run records is in
/// memory, and compared with every file.
const MESSAGES: u64 = 200_000;

/// How many nodes there are.
const NODES: u64 = 3;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillNode,
    StopNode,
    KillEngine,
    LoseTail,
    FreezeEngine,
    CutOffNode,
    FreezeWay,
    Failover,
    KillAll,
}

const FAULTS: [Fault; 9] = [
    Fault::KillNode,
    Fault::StopNode,
    Fault::KillEngine,
    Fault::LoseTail,
    Fault::FreezeEngine,
    Fault::CutOffNode,
    Fault::FreezeWay,
    Fault::Failover,
    Fault::KillAll,
];

fn seconds(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a whole number"))
}

#[test]
fn random_faults_lose_nothing_and_double_nothing() {
    let time = seconds("TXTCORD_CHAOS").map_or(SHORT, Duration::from_secs);
    let dice = match seconds("TXTCORD_CHAOS_SEED") {
        Some(seed) => Dice::of(seed),
        None => Dice::new(),
    };
    let dice = RefCell::new(dice);
    with_more_and_more_time(SETTLES, |settle| {
        let end = Instant::now() + time;
        let mut total = 0;
        while Instant::now() < end {
            let Some(acknowledged) = one_run(&mut dice.borrow_mut(), end, settle) else { return };
            total += acknowledged;
            println!("{total} messages were acknowledged");
        }
    });
}

/// A run on new files; how many messages were acknowledged, all of which are there.
fn one_run(dice: &mut Dice, end: Instant, settle: Duration) -> Option<usize> {
    let mut engine = Engine::start(Keeps::EverySecond)?;
    let mut standby = Engine::start(Keeps::EverySecond)?;
    standby.follows(&engine);
    let mut nodes = Nodes::patient(&engine, NODES as usize, settle);
    let load = Load::on(&nodes.addresses, "load");
    load.goes_on(200);
    while Instant::now() < end && load.so_far() < MESSAGES {
        let fault = FAULTS[dice.below(FAULTS.len() as u64) as usize];
        let node = dice.below(NODES) as usize;
        println!("{fault:?}, node {node}, {} acknowledged", load.so_far());
        let moment = Duration::from_millis(dice.below(6_000));
        match fault {
            Fault::KillNode => {
                nodes.all[node].kill();
                thread::sleep(moment / 4);
                nodes.all[node].start();
            }
            Fault::StopNode => {
                nodes.all[node].stop();
                nodes.all[node].start();
            }
            Fault::KillEngine => {
                engine.kill();
                thread::sleep(moment / 4);
                engine.restart();
            }
            Fault::LoseTail => {
                engine.kill();
                engine.cut(dice.below(1 + (engine.appended() / 3).min(50_000)));
                engine.restart();
            }
            Fault::FreezeEngine => {
                engine.freeze();
                thread::sleep(moment);
                engine.thaw();
            }
            Fault::CutOffNode => {
                nodes.all[node].proxy.becomes(Way::Cut);
                thread::sleep(moment / 2);
                nodes.all[node].proxy.becomes(Way::Open);
            }
            Fault::FreezeWay => {
                nodes.all[node].proxy.becomes(Way::Frozen);
                thread::sleep(moment);
                nodes.all[node].proxy.becomes(Way::Open);
            }
            Fault::Failover => {
                engine.kill();
                standby.is_promoted();
                std::mem::swap(&mut engine, &mut standby);
                nodes.lead_to(&engine);
                // The old one comes back as the new one's replica, and forgets what that lacks.
                standby.restart();
                standby.follows(&engine);
            }
            Fault::KillAll => {
                engine.kill();
                nodes.all.iter_mut().for_each(|node| node.kill());
                engine.restart();
                nodes.all.iter_mut().for_each(|node| node.start());
            }
        }
        nodes.are_ready();
        load.goes_on(50 + dice.below(200));
        // What was said of an engine's faults holds when all who have its tail are there.
        let lag = || nodes.sum("txtcord_cluster_lag_lines");
        within(CALM, "no node is far behind", || lag() < 1_000.0, || lag().to_string());
        let replica = || standby.info("master_link_status") == "up";
        within(CALM, "the replica is there", replica, || standby.log());
    }
    let record = load.ends();
    let files = nodes.agree(record.last());
    holds(&files, &record);
    assert!(nodes.set_aside().is_empty(), "{:?}", nodes.set_aside());
    Some(record.acknowledged.len())
}
