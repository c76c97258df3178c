//! One run with faults, from the submission of the job to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use antiphon_core::event::{FinalState, Finished};
use antiphon_core::ids::ModalityName;
use antiphon_process::Interrupts;
use antiphon_proto::v1::SubmitJobRequest;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::follower::{Follower, JobProgress, joined};
use super::report::{Moment, Report};
use crate::client::Client;
use crate::lab::fault::{Fault, Kind, Schedule, Target, Victim};
use crate::lab::processes::{Processes, Setup};

/// Time between two checks for exited processes.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit for asking the coordinator why a job hangs.
const ASK: Duration = Duration::from_secs(5);
/// The pause before an exited process is restarted.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// The faults of a run, and its limits.
#[derive(Debug)]
pub(super) struct Scenario<'a> {
    pub(super) seed: u64,
    pub(super) targets: &'a [Target],
    pub(super) every: Duration,
    pub(super) lease: Duration,
    /// The largest number of faults; None means no limit.
    pub(super) faults: Option<u64>,
    pub(super) timeout: Duration,
    /// The run counts as hung if the job takes no step for this time.
    pub(super) hang_timeout: Duration,
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
    /// The job still took steps at the timeout.
    TooSlow,
    /// The job stopped taking steps.
    Hung {
        reason: String,
    },
    Interrupted,
}

/// The result of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) took: Duration,
    /// The progress of the job at the end.
    pub(super) progress: JobProgress,
    /// Time from the job's last step to the end, or from the start if the job took no step.
    pub(super) quiet: Duration,
    /// Number of faults of each kind and process.
    pub(super) faults: BTreeMap<String, u64>,
    pub(super) process_exits: u64,
}

/// An action that is scheduled.
#[derive(Debug)]
enum Due {
    Fault(Fault),
    FaultEnd(Kind, Victim),
}

/// A run.
struct Run<'a> {
    scenario: &'a Scenario<'a>,
    schedule: Schedule,
    started: Instant,
    /// Scheduled actions by time. The number orders actions with the same time.
    due: BTreeMap<(Instant, u64), Due>,
    number: u64,
    /// Number of faults drawn, whether or not they happened.
    drawn: u64,
    /// The next fault, while it waits for the first turn of the job.
    early: Option<Fault>,
    faults: BTreeMap<String, u64>,
    process_exits: u64,
    progress: watch::Receiver<JobProgress>,
}

/// Starts the processes, submits the job, and injects faults until the job ends. Must be called on the main thread.
pub(super) async fn run(
    scenario: &Scenario<'_>,
    setup: &Setup<'_>,
    request: SubmitJobRequest,
    report: &mut Report,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Outcome> {
    let mut processes = Processes::start(setup).await?;
    let (sender, progress) = watch::channel(JobProgress::default());
    let client = Client::new(processes.url())?;
    let job = request.job.clone().unwrap_or_default();
    let mut following = JoinSet::new();
    following.spawn(Follower::new(client.clone(), request, sender).follow());
    let mut run = Run {
        scenario,
        schedule: Schedule::new(scenario.seed, scenario.targets, (scenario.every, scenario.lease), scenario.modalities),
        started: Instant::now(),
        due: BTreeMap::new(),
        number: 0,
        drawn: 0,
        early: None,
        faults: BTreeMap::new(),
        process_exits: 0,
        progress,
    };
    let mut end = run.drive(&mut processes, &mut following, report, interrupts).await;
    let (took, quiet, progress) = (run.started.elapsed(), run.quiet(), *run.progress.borrow());
    if let Ok(End::Hung { reason }) = &mut end {
        *reason = waits_for(client, &job).await;
    }
    let store_faults = processes.store_faults();
    processes.kill_all().await?;
    let end = end?;
    if store_faults > 0 {
        run.faults.insert("store".to_owned(), store_faults);
    }
    Ok(Outcome { end, took, progress, quiet, faults: run.faults, process_exits: run.process_exits })
}

impl Run<'_> {
    async fn drive(
        &mut self,
        processes: &mut Processes,
        following: &mut JoinSet<anyhow::Result<Finished>>,
        report: &mut Report,
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<End> {
        let deadline = self.started + self.scenario.timeout;
        let mut progress = self.progress.clone();
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.draw_next();
        loop {
            let next = self.due.first_key_value().map_or(deadline, |((at, _), _)| *at);
            tokio::select! {
                Some(ended) = following.join_next() => return Ok(end_of(joined(ended))),
                () = interrupts.next() => return Ok(End::Interrupted),
                () = tokio::time::sleep_until(deadline) => {
                    // Tells slow and hung runs apart even if the timeout is shorter than the hang timeout.
                    let is_quiet = self.quiet() >= self.scenario.timeout / 2;
                    return Ok(if is_quiet { End::Hung { reason: String::new() } } else { End::TooSlow });
                }
                () = tokio::time::sleep_until(next) => match self.due.pop_first() {
                    Some((_, Due::Fault(fault))) => self.begin(processes, fault, report).await?,
                    Some((_, Due::FaultEnd(kind, victim))) => {
                        processes.end(kind, &victim)?;
                        report.tell(&self.moment().fault_ended(kind, &victim))?;
                    }
                    None => {}
                },
                Ok(_) = progress.wait_for(|progress| progress.stepped.is_some()), if self.early.is_some() => {
                    if let Some(fault) = self.early.take() {
                        self.later(fault.after, Due::Fault(fault));
                    }
                }
                _ = check.tick() => {
                    if self.quiet() >= self.scenario.hang_timeout {
                        return Ok(End::Hung { reason: String::new() });
                    }
                    self.restart_exited(processes, report)?;
                }
            }
        }
    }

    /// Draws the next fault. If the number of faults is limited, at most a third of them happen before the first turn,
    /// so that most happen during training.
    fn draw_next(&mut self) {
        let most = self.scenario.faults;
        let more = most.is_none_or(|most| self.drawn < most);
        let Some(fault) = more.then(|| self.schedule.next()).flatten() else { return };
        self.drawn += 1;
        match most {
            Some(most) if self.drawn > most / 3 && !self.is_training() => self.early = Some(fault),
            _ => self.later(fault.after, Due::Fault(fault)),
        }
    }

    fn is_training(&self) -> bool {
        self.progress.borrow().stepped.is_some()
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
            if kind != Kind::Disconnect {
                self.later(lasts, Due::FaultEnd(kind, victim));
            }
        }
        self.draw_next();
        Ok(())
    }

    /// Schedules the restart of exited processes, as a cluster would.
    fn restart_exited(&mut self, processes: &mut Processes, report: &mut Report) -> anyhow::Result<()> {
        for (victim, status) in processes.exited()? {
            self.process_exits += 1;
            report.tell(&self.moment().process_exited(&victim, status.to_string()))?;
            self.later(RESTART_PAUSE, Due::FaultEnd(Kind::Kill, victim));
        }
        Ok(())
    }

    /// Time since the last step, or since the start.
    fn quiet(&self) -> Duration {
        self.progress.borrow().stepped.unwrap_or(self.started).elapsed()
    }

    fn moment(&self) -> Moment {
        Moment { seed: self.scenario.seed, at: self.started.elapsed(), progress: *self.progress.borrow() }
    }
}

/// Asks the coordinator why the job waits.
async fn waits_for(client: Client, job: &str) -> String {
    match tokio::time::timeout(ASK, client.job(job)).await {
        Err(_) => "the coordinator does not answer".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok((status, _))) if status.reason.is_empty() => "the job gives no reason".to_owned(),
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
