//! One run under faults, from submission to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use antiphon_core::event::{FinalState, Finished};
use antiphon_core::ids::ModalityName;
use antiphon_process::Interrupts;
use antiphon_proto::v1::SubmitJobRequest;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::follower::{Follower, Standing, joined};
use super::report::{Moment, Report};
use crate::client::Client;
use crate::lab::fault::{Fault, Kind, Schedule, Target, Victim};
use crate::lab::processes::{Processes, Setup};

/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(100);
/// How long the coordinator may take to say what a job waits for that hangs.
const ASK: Duration = Duration::from_secs(5);
/// How long a process that ended by itself is left alone.
const BY_ITSELF: Duration = Duration::from_millis(500);

/// What a run is to suffer.
#[derive(Debug)]
pub(super) struct Scenario<'a> {
    pub(super) seed: u64,
    pub(super) targets: &'a [Target],
    pub(super) every: Duration,
    pub(super) lease: Duration,
    /// The most faults; without end if none.
    pub(super) faults: Option<u64>,
    pub(super) timeout: Duration,
    /// Without a step for so long it hangs.
    pub(super) hung_after: Duration,
    pub(super) modalities: &'a [ModalityName],
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Succeeded {
        digest: String,
    },
    Failed {
        reason: String,
    },
    /// It still took steps when the time was over.
    TooSlow,
    /// It took none any more.
    Hung {
        reason: String,
    },
    Interrupted,
}

/// What came of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) took: Duration,
    /// How far the job came.
    pub(super) standing: Standing,
    /// How long before the end it took its last step; or began, if it took none.
    pub(super) quiet: Duration,
    /// Faults by what they are.
    pub(super) faults: BTreeMap<String, u64>,
    pub(super) ended_by_itself: u64,
}

/// What is to happen at a moment.
#[derive(Debug)]
enum Due {
    Fault(Fault),
    Over(Kind, Victim),
}

/// A run.
struct Run<'a> {
    scenario: &'a Scenario<'a>,
    schedule: Schedule,
    begun: Instant,
    /// In order; the number tells two of the same moment apart.
    due: BTreeMap<(Instant, u64), Due>,
    number: u64,
    /// Faults that were begun or passed by.
    planned: u64,
    /// The next fault, where it waits for the job's first turn.
    early: Option<Fault>,
    faults: BTreeMap<String, u64>,
    ended_by_itself: u64,
    standing: watch::Receiver<Standing>,
}

/// Starts the processes, submits the job, and lets faults happen until it ends. To be called on the main thread.
pub(super) async fn run(
    scenario: &Scenario<'_>,
    setup: &Setup<'_>,
    request: SubmitJobRequest,
    report: &mut Report,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Outcome> {
    let mut processes = Processes::start(setup).await?;
    let (sender, standing) = watch::channel(Standing::default());
    let client = Client::new(processes.url())?;
    let job = request.job.clone().unwrap_or_default();
    let mut following = JoinSet::new();
    following.spawn(Follower::new(client.clone(), request, sender).follow());
    let mut run = Run {
        scenario,
        schedule: Schedule::new(scenario.seed, scenario.targets, (scenario.every, scenario.lease), scenario.modalities),
        begun: Instant::now(),
        due: BTreeMap::new(),
        number: 0,
        planned: 0,
        early: None,
        faults: BTreeMap::new(),
        ended_by_itself: 0,
        standing,
    };
    let mut end = run.drive(&mut processes, &mut following, report, interrupts).await;
    let (took, quiet, standing) = (run.begun.elapsed(), run.quiet(), *run.standing.borrow());
    if let Ok(End::Hung { reason }) = &mut end {
        *reason = waits_for(client, &job).await;
    }
    let store_faults = processes.store_faults();
    processes.dismiss().await?;
    let end = end?;
    if store_faults > 0 {
        run.faults.insert("of the store".to_owned(), store_faults);
    }
    Ok(Outcome { end, took, standing, quiet, faults: run.faults, ended_by_itself: run.ended_by_itself })
}

impl Run<'_> {
    async fn drive(
        &mut self,
        processes: &mut Processes,
        following: &mut JoinSet<anyhow::Result<Finished>>,
        report: &mut Report,
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<End> {
        let deadline = self.begun + self.scenario.timeout;
        let mut standing = self.standing.clone();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.plan_next();
        loop {
            let next = self.due.first_key_value().map_or(deadline, |((at, _), _)| *at);
            tokio::select! {
                Some(ended) = following.join_next() => return Ok(end_of(joined(ended))),
                () = interrupts.next() => return Ok(End::Interrupted),
                () = tokio::time::sleep_until(deadline) => {
                    // Whoever lets it run for less than the time in which it may be quiet wants to know as well.
                    let is_quiet = self.quiet() >= self.scenario.timeout / 2;
                    return Ok(if is_quiet { End::Hung { reason: String::new() } } else { End::TooSlow });
                }
                () = tokio::time::sleep_until(next) => match self.due.pop_first() {
                    Some((_, Due::Fault(fault))) => self.begin(processes, fault, report).await?,
                    Some((_, Due::Over(kind, victim))) => {
                        processes.end(kind, &victim)?;
                        report.tell(&self.moment().over(kind, &victim))?;
                    }
                    None => {}
                },
                Ok(_) = standing.wait_for(|standing| standing.stepped.is_some()), if self.early.is_some() => {
                    if let Some(fault) = self.early.take() {
                        self.later(fault.after, Due::Fault(fault));
                    }
                }
                _ = look.tick() => {
                    if self.quiet() >= self.scenario.hung_after {
                        return Ok(End::Hung { reason: String::new() });
                    }
                    self.look(processes, report)?;
                }
            }
        }
    }

    /// Of faults that are counted, one third at most happens before the job's first turn: most are to meet it at work.
    fn plan_next(&mut self) {
        let most = self.scenario.faults;
        let more = most.is_none_or(|most| self.planned < most);
        let Some(fault) = more.then(|| self.schedule.next()).flatten() else { return };
        self.planned += 1;
        match most {
            Some(most) if self.planned > most / 3 && !self.works() => self.early = Some(fault),
            _ => self.later(fault.after, Due::Fault(fault)),
        }
    }

    fn works(&self) -> bool {
        self.standing.borrow().stepped.is_some()
    }

    fn later(&mut self, after: Duration, due: Due) {
        self.due.insert((Instant::now() + after, self.number), due);
        self.number += 1;
    }

    async fn begin(&mut self, processes: &mut Processes, fault: Fault, report: &mut Report) -> anyhow::Result<()> {
        let Fault { kind, victim, lasts, .. } = fault;
        if processes.begin(kind, &victim).await? {
            *self.faults.entry(format!("{kind} {victim}")).or_default() += 1;
            report.tell(&self.moment().fault(kind, &victim, lasts))?;
            if kind != Kind::Cut {
                self.later(lasts, Due::Over(kind, victim));
            }
        }
        self.plan_next();
        Ok(())
    }

    /// Whoever ended by itself is started again, as a cluster would.
    fn look(&mut self, processes: &mut Processes, report: &mut Report) -> anyhow::Result<()> {
        for (victim, status) in processes.exited()? {
            self.ended_by_itself += 1;
            report.tell(&self.moment().ended_by_itself(&victim, status.to_string()))?;
            self.later(BY_ITSELF, Due::Over(Kind::Kill, victim));
        }
        Ok(())
    }

    /// Time since the last step, or since the beginning.
    fn quiet(&self) -> Duration {
        self.standing.borrow().stepped.unwrap_or(self.begun).elapsed()
    }

    fn moment(&self) -> Moment {
        Moment { seed: self.scenario.seed, at: self.begun.elapsed(), standing: *self.standing.borrow() }
    }
}

/// What the job waits for, if its coordinator says so.
async fn waits_for(client: Client, job: &str) -> String {
    match tokio::time::timeout(ASK, client.job(job)).await {
        Err(_) => "the coordinator does not answer".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok((status, _))) if status.reason.is_empty() => "the job does not say what it waits for".to_owned(),
        Ok(Ok((status, _))) => status.reason,
    }
}

fn end_of(ended: anyhow::Result<Finished>) -> End {
    match ended {
        Err(error) => End::Failed { reason: format!("{error:#}") },
        Ok(Finished { state: FinalState::Succeeded, digest: Some(digest), .. }) => End::Succeeded { digest },
        Ok(Finished { state, reason, .. }) => {
            End::Failed { reason: reason.unwrap_or_else(|| format!("the job ended as {state:?}")) }
        }
    }
}
