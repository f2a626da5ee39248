//! Whether a token could be published here: a file of its size is made beside the place as a token's is, and removed
//! again. It never has the name that consumers open, and it holds no token.

use super::{FileSpec, account, folder, held, lane, parts, publish};
use crate::sink::{Context, Failure};
use crate::token::Payload;

/// What it holds, again and again.
const TEXT: &[u8] = b"a probe of tokenferry\n";

/// Tries everything of a put but the last step.
///
/// # Errors
/// As for a put.
pub(in crate::sink) async fn probe(spec: &FileSpec, payload: &Payload, context: Context<'_>) -> Result<String, Failure> {
    let (parent, name) = parts(&spec.path)?;
    let (size, shown) = (payload.expose().len(), parent.display().to_string());
    let wish = account::wish(spec).await?;
    let at = parent.clone();
    let work = move || match folder::find(&parent)? {
        None => folder::unmakeable(&parent)?.map_or(Ok(false), Err),
        Some(folder) => {
            held::stat(&folder, &name, &wish)?;
            publish::rehearse(&folder, &name, &wish, &filler(size)).map(|()| true)
        }
    };
    Ok(said(lane::run(context.timeout, &at, work).await?, &shown))
}

/// What a probe found, in words; whether the folder is there.
pub(super) fn said(there: bool, folder: &str) -> String {
    if there { format!("a file was made in {folder} and removed again") } else { format!("{folder} is made by the first delivery") }
}

/// So many bytes that are no token.
pub(super) fn filler(size: usize) -> Vec<u8> {
    TEXT.iter().copied().cycle().take(size).collect()
}
