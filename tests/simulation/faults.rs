//! What the network and the processes of a simulated mesh suffer: cuts both ways and one way, stalls, losses, delays, crashes. All of it is
//! drawn from the seed before the run begins, and all of it is mended when the time of the faults is over.

use crate::journal;
use crate::programs::{BRANCHES, FAULTS_UNTIL, HUB};
use std::time::Duration;
use turmoil::Sim;

/// A fault.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing passes between a host and the master; what is sent meanwhile is lost, so the link never brings anything again.
    Cut,
    /// Nothing passes from the host to the master.
    CutToMaster,
    /// Nothing passes from the master to the host.
    CutFromMaster,
    /// What is sent waits, and arrives in the end.
    Stall,
    /// Each message may cut the connection for some messages.
    Loss,
    /// Messages take longer.
    Delay,
    /// The process ends at once, and its sockets are closed.
    Crash,
    /// The host is cut off, and its process ends: nobody is told.
    Vanish,
}

/// Something that is done to the mesh at a moment.
#[derive(Clone, Copy, Debug)]
struct Step {
    at: Duration,
    host: &'static str,
    fault: Fault,
    /// Whether the fault ends here.
    ends: bool,
}

/// All faults of one run, in their order.
pub(crate) struct Faults {
    steps: Vec<Step>,
    next: usize,
}

impl Faults {
    /// No faults.
    pub(crate) fn none() -> Self {
        Self { steps: Vec::new(), next: 0 }
    }

    /// Draws the faults of a run with so many branches.
    pub(crate) fn draw(chance: &mut fastrand::Rng, branches: usize) -> Self {
        let mut steps = Vec::new();
        for host in std::iter::once(HUB).chain(BRANCHES[..branches].iter().copied()) {
            let mut at = Duration::from_millis(chance.u64(100..1500));
            while at < FAULTS_UNTIL {
                let lasts = Duration::from_millis(if chance.bool() {
                    chance.u64(5..150)
                } else {
                    chance.u64(150..900)
                });
                let fault = match chance.u32(0..if host == HUB { 24 } else { 12 }) {
                    0 => Fault::Crash,
                    1 if host != HUB => Fault::Vanish,
                    2 | 3 if host != HUB => Fault::Cut,
                    4 if host != HUB => Fault::CutToMaster,
                    5 if host != HUB => Fault::CutFromMaster,
                    6 | 7 if host != HUB => Fault::Stall,
                    8 if host != HUB => Fault::Loss,
                    9 if host != HUB => Fault::Delay,
                    // The host is left alone.
                    _ => {
                        at += lasts;
                        continue;
                    }
                };
                let until = (at + lasts).min(FAULTS_UNTIL);
                steps.push(Step { at, host, fault, ends: false });
                steps.push(Step { at: until, host, fault, ends: true });
                at = until + Duration::from_millis(chance.u64(0..700));
            }
        }
        steps.sort_by_key(|step| step.at);
        Self { steps, next: 0 }
    }

    /// Carries out what is due.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>) {
        while let Some(step) = self.steps.get(self.next).filter(|step| step.at <= sim.elapsed()) {
            let Step { host, fault, ends, .. } = *step;
            self.next += 1;
            journal::note(format_args!("{host}: {fault:?} {}", if ends { "ends" } else { "begins" }));
            match (fault, ends) {
                (Fault::Cut, false) => sim.partition(host, HUB),
                (Fault::CutToMaster, false) => sim.partition_oneway(host, HUB),
                (Fault::CutFromMaster, false) => sim.partition_oneway(HUB, host),
                (Fault::Cut | Fault::CutToMaster | Fault::CutFromMaster, true) => sim.repair(host, HUB),
                (Fault::Stall, false) => sim.hold(host, HUB),
                (Fault::Stall, true) => sim.release(host, HUB),
                (Fault::Loss, false) => sim.set_link_fail_rate(host, HUB, 0.05),
                (Fault::Loss, true) => {
                    sim.set_link_fail_rate(host, HUB, 0.0);
                    sim.repair(host, HUB);
                }
                (Fault::Delay, false) => {
                    sim.set_link_max_message_latency(host, HUB, Duration::from_millis(250));
                }
                (Fault::Delay, true) => sim.set_link_max_message_latency(host, HUB, LATENCY_MAX),
                (Fault::Vanish, false) => {
                    sim.partition(host, HUB);
                    crash(sim, host);
                }
                (Fault::Crash, false) => crash(sim, host),
                (Fault::Vanish, true) => {
                    sim.repair(host, HUB);
                    sim.bounce(host);
                }
                (Fault::Crash, true) => sim.bounce(host),
            }
        }
    }
}

/// The longest time that a message takes, where there is no fault.
pub(crate) const LATENCY_MAX: Duration = Duration::from_millis(25);

fn crash(sim: &mut Sim<'_>, host: &'static str) {
    journal::crashes(host, || sim.crash(host));
}
