//! Whether a token could be published here: a generation of its size is made, and removed again before anybody is led
//! to it.

use super::generation::Generation;
use super::{DirectorySpec, Folder, used};
use crate::sink::file::probe::{filler, said};
use crate::sink::file::{account, folder, lane, parts};
use crate::sink::{Context, Failure};
use crate::token::Payload;
use crate::token::payload::{Dress, Part};

/// Tries everything of a put but the last step.
///
/// # Errors
/// As for a put.
pub(in crate::sink) async fn probe(spec: &DirectorySpec, payload: &Payload, context: Context<'_>) -> Result<String, Failure> {
    let path = &spec.files_as.path;
    parts(path)?;
    let filled = payload.parts().iter().map(|part| Part::new(part.name.clone(), filler(part.expose().len()))).collect();
    let (filled, at) = (Payload::of(filled, Dress::default()), path.clone());
    let wish = account::wish(&spec.files_as).await?;
    let work = move || match folder::find(&at)? {
        None => folder::unmakeable(&at)?.map_or(Ok(false), Err),
        Some(folder) => try_out(&folder, &wish, &filled).map(|()| true),
    };
    Ok(said(lane::run(context.timeout, path, work).await?, &path.display().to_string()))
}

fn try_out(folder: &Folder, wish: &account::Wish, payload: &Payload) -> Result<(), Failure> {
    used(folder)?;
    let generation = Generation::make(folder)?;
    let filled = generation.fill(wish, payload);
    generation.discard();
    filled
}
