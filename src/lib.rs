//! tokenferry carries short-lived Kubernetes ServiceAccount tokens to the systems outside the cluster that need
//! them: it mints each token through the TokenRequest API by a schedule file, and writes it whole or not at all to
//! files, Vault or OpenBao, AWS Secrets Manager and Kubernetes Secrets, with retry and fallback. This page is the map of the code.
//!
//! # The seven words
//! schedule (the file) · plan (the file, checked) · target (one ServiceAccount's token kept fresh) · token · payload
//! (rendered bytes) · sink (one place it goes) · record (what happened, one JSON line). Rotate = mint, render,
//! deliver. They are the same words in YAML, types, logs and tests.
//!
//! # Where things are
//! Each folder answers one question, and imports only from the folders below it:
//!
//! | folder | question | its heart |
//! |---|---|---|
//! | `main.rs` | | private memory, then [`cli::main`] |
//! | [`cli`] | what does a person type? | one thin file for each command |
//! | [`audit`] | is all well? | `inspect` and `verify`: what a token says, and whether it is good; `rbac`: which rights a schedule needs; `doctor`: what is wrong; `host`: what a schedule needs of this host; `plan`: what will happen; `report`: what happened, and whether that kept the limits; `legacy`: tokens without an end, and how they end; `trail`: the API server's audit log; `join`: whether that log and the records agree; `bootstrap`: what the daemon needs first |
//! | [`daemon`] | who keeps it going? | `wheel` (the event loop), `timetable` (what happens next to which target, pure), `step` (what is next, pure), `rotation` (the story of one), `rehearsal` (the same, and nothing published), `proof` (is its token good?), `failback` (the way back from a fallback, pure), `revocation` (which token nobody needs any more, pure), `binding` (which marker a token is bound to), `start` (what stands there already), `read` (opens files for planning), `files` and `named` (what consumers ask without planning), `control` (the socket), `own` (the daemon's own credentials), `alerts` (who is told of what, and when, pure), `monitor` (tokens that others mint), `pace` (what comes again after a period, pure), `published` (a token as its consumer reads it), `whole` (files for others), `crowd` (how many rotations stand in memory at once), `aside` (long work that gives way to the loop), `walls` (where this process and what it starts may write, by the kernel), `fleet` (who else serves this schedule, and what is ours) |
//! | [`record`] | what happened? | `line`, `chain`, `append`, `fold`, `query` |
//! | [`schedule`] | what should be fresh, and when? | `file` (as written), `plan` (checked), `check`, `change`, `own` (the daemon's credentials as targets), `alerts` (what is told unasked), `timing`, `proof` (no token can expire), `foreign` (words of other tools, and ours for them): all pure |
//! | [`after`] | who is told? | one file for each hook: `exec`, `signal`, `systemd`, `http`, `rollout`; [`daemon::errands`] decides when; `message` tells people and machines of trouble, and [`daemon::alerts`] decides when |
//! | [`sink`] | where does it go? | `kinds` (the list of sinks and stores, and what each says of itself), `delivery` (attempts, backoff, fallback), `manners` (what is ours, what is said beside a token), `leftover` (how it is taken back), then one file or folder for each sink |
//! | [`cluster`] | who issues it? | `client`, `mint`, `own`, `job` (a CI job logs in as itself), `eks` and `plugin` (so do clusters of the clouds), `aws` (its credentials), `awaited` (a login token that is on its way), `object` (what we make there), `pages` (lists, never in memory whole), `legacy` (tokens in Secrets), `marker` (what a token dies with), `lease` (how members of a fleet know of each other), `embedded`, `prove`, `keys`, `review` (what a person asks about a token), `rights`, `upstream` (the load that one server gets) |
//! | [`token`] | what is it? | `Token`, `claims`, `render` (with `kubeconfig` and `template`), `payload`, `extract`, `mask`, `wipe`, `age` (sealed to somebody's key), `sealed` (payloads that are) |
//!
//! One rotation goes `wheel → rotation → delivery → sink`: four functions in four files, with no channel between
//! them. A reload swaps an `Arc` of the plan whole; a rotation ends with the plan that it began with.
//!
//! # What there is not
//! - `schedule` does no I/O: it takes paths with their texts and a map of variables. Planning opens no socket, reads
//!   no secret, builds no client.
//! - No file but `cluster/mint.rs` calls TokenRequest.
//! - `sink` knows neither targets nor the time of day; `token` knows no network.
//! - No mutable state outside the daemon's loop, except a sink's login lease, one `upstream` for each server, and the
//!   seat in the fleet, which each write asks whether it may go on.
//! - State is the fold of the records: there is no second store to be kept in step with them.
//! - No retry in a sink or in `mint`: `delivery` and the loop decide, each attempt says how it failed.
//! - Nothing goes to standard output but through `cli/print.rs`.
//! - No token can be printed: its type has neither `Debug` nor `Display`.
//! - Nothing in here knows that it is tested.
//!
//! `tests/architecture.rs` holds the import rule and those absences that can be read off the text.
//!
//! # How to change it
//! - A new sink: one file in `sink` with its [`sink::kinds::Sink`] (checks, limits, rights, put, held, probe, remove), one line in the
//!   list of [`sink::kinds`] (one more, with the system it belongs to, where it brings a store of its own), one row in `tests/sinks`, one example, one bad schedule.
//! - A new hook: one file in `after`, one variant of `HookSpec`, its keys in `schedule/hooks.rs`.
//! - A new format: one arm in `token/render.rs`, and its way back in `extract`.
//! - A new timing rule: `schedule/timing.rs`.
//! - A new word for `alerts`: one variant of `On`, and what [`daemon::alerts::conditions`] makes of it.
//! - A new key: the spec that uses it, and a schedule under `tests/schedules/bad` that gets it wrong. One that names a file or
//!   folder that the daemon writes has a line in `daemon/walls/needs.rs` too. A key that is renamed: a row in `schedule/foreign.rs`.
//! - A new command: one file in `cli`.
//! - A new kind of record: one variant of [`record::Kind`], and what [`record::fold`] makes of it.

pub mod after;
pub mod audit;
pub mod cli;
pub mod cluster;
pub mod daemon;
pub mod record;
pub mod schedule;
pub mod sink;
pub mod token;
