//! Ticks of cron rules: one tokio-cron-scheduler job for each distinct expression and time zone, which only
//! sends its number; fan-out, offsets and limits are the loop's.
//!
//! The scheduler's own reckoning of the next time is an hour off after a change of daylight saving, so its
//! metadata store is ours and reckons by [`CronRule`].

use std::collections::HashMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_cron_scheduler::job::job_data::{JobAndNextTick, JobStoredData};
use tokio_cron_scheduler::store::{DataStore, InitStore};
use tokio_cron_scheduler::{
    Job, JobScheduler, JobSchedulerError, MetaDataStorage, SimpleJobCode, SimpleNotificationCode, SimpleNotificationStore,
};
use uuid::Uuid;

use crate::schedule::Plan;
use crate::schedule::cron::CronRule;

/// Slots of the scheduler's channel: full, it would lose ticks.
const CHANNEL: usize = 1024;

/// The running scheduler of one plan.
#[derive(Default)]
pub struct Ticker {
    scheduler: Option<JobScheduler>,
}

/// Every distinct rule of a plan.
pub fn rules(plan: &Plan) -> Vec<CronRule> {
    let (mut rules, mut known) = (Vec::new(), std::collections::HashSet::new());
    for rule in plan.targets.iter().flat_map(|t| &t.rotate.cron) {
        if known.insert((rule.text.as_str(), rule.zone.iana_name())) {
            rules.push(rule.clone());
        }
    }
    rules
}

impl Ticker {
    /// Starts a job for each of these rules; each tick sends the rule. Without any nothing runs.
    ///
    /// # Errors
    /// What the scheduler says of a rule that planning let through.
    pub async fn start(rules: Vec<CronRule>, ticks: &mpsc::UnboundedSender<CronRule>) -> Result<Self, JobSchedulerError> {
        if rules.is_empty() {
            return Ok(Self::default());
        }
        let store = Rules::default();
        let channel = (rules.len() * 4).next_power_of_two().max(CHANNEL);
        let scheduler = JobScheduler::new_with_storage_and_code(
            Box::new(store.clone()),
            Box::new(SimpleNotificationStore::default()),
            Box::new(SimpleJobCode::default()),
            Box::new(SimpleNotificationCode::default()),
            channel,
        )
        .await?;
        for rule in rules {
            let (ticks, sent) = (ticks.clone(), rule.clone());
            let job = Job::new_async(rule.scheduler_text().as_str(), move |_, _| {
                let (ticks, rule) = (ticks.clone(), sent.clone());
                // A loop that is gone needs no ticks.
                Box::pin(async move { drop(ticks.send(rule)) })
            })?;
            store.lock().rules.insert(job.guid(), rule.clone());
            scheduler.add(job).await?;
        }
        scheduler.start().await?;
        Ok(Self { scheduler: Some(scheduler) })
    }

    /// Stops the ticks.
    pub async fn stop(&mut self) {
        if let Some(mut scheduler) = self.scheduler.take()
            && let Err(error) = scheduler.shutdown().await
        {
            tracing::warn!(%error, "the cron scheduler did not stop cleanly");
        }
    }
}

#[derive(Clone, Default)]
struct Rules(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    rules: HashMap<Uuid, CronRule>,
    jobs: HashMap<Uuid, JobStoredData>,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, JobSchedulerError>> + Send>>;

impl Rules {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Unix seconds of the rule's next time; 0, the scheduler's word for never, where there is none.
    fn next(&self, id: Uuid) -> u64 {
        let next = self.rules.get(&id).and_then(|rule| rule.next(Timestamp::now()));
        next.and_then(|t| u64::try_from(t.as_second()).ok()).unwrap_or(0)
    }
}

impl InitStore for Rules {
    fn init(&mut self) -> Answer<()> {
        Box::pin(ready(Ok(())))
    }

    fn inited(&mut self) -> Answer<bool> {
        Box::pin(ready(Ok(true)))
    }
}

impl DataStore<JobStoredData> for Rules {
    fn get(&mut self, id: Uuid) -> Answer<Option<JobStoredData>> {
        Box::pin(ready(Ok(self.lock().jobs.get(&id).cloned())))
    }

    fn add_or_update(&mut self, mut job: JobStoredData) -> Answer<()> {
        let Some(id) = job.id.as_ref().map(Uuid::from) else { return Box::pin(ready(Err(JobSchedulerError::UpdateJobData))) };
        let mut table = self.lock();
        job.next_tick = table.next(id);
        table.jobs.insert(id, job);
        Box::pin(ready(Ok(())))
    }

    fn delete(&mut self, id: Uuid) -> Answer<()> {
        self.lock().jobs.remove(&id);
        Box::pin(ready(Ok(())))
    }
}

impl MetaDataStorage for Rules {
    /// Only what is due: the scheduler would copy every job twice a second.
    fn list_next_ticks(&mut self) -> Answer<Vec<JobAndNextTick>> {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let due = |job: &&JobStoredData| job.next_tick > 0 && job.next_tick <= now;
        let row =
            |job: &JobStoredData| JobAndNextTick { id: job.id, next_tick: job.next_tick, last_tick: job.last_tick, job_type: job.job_type };
        Box::pin(ready(Ok(self.lock().jobs.values().filter(due).map(row).collect())))
    }

    fn set_next_and_last_tick(
        &mut self,
        id: Uuid,
        _next: Option<chrono::DateTime<chrono::Utc>>,
        last: Option<chrono::DateTime<chrono::Utc>>,
    ) -> Answer<()> {
        let mut table = self.lock();
        let next = table.next(id);
        if let Some(job) = table.jobs.get_mut(&id) {
            job.next_tick = next;
            job.last_tick = last.and_then(|t| u64::try_from(t.timestamp()).ok());
        }
        Box::pin(ready(Ok(())))
    }

    fn time_till_next_job(&mut self) -> Answer<Option<std::time::Duration>> {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let next = self.lock().jobs.values().filter(|job| job.next_tick > 0).map(|job| job.next_tick.saturating_sub(now)).min();
        Box::pin(ready(Ok(next.map(std::time::Duration::from_secs))))
    }
}
