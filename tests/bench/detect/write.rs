//! The models' traces as files, for `portreeve detect replay` and for whoever wants to look.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use portreeve::detect::Observation;

use super::actor::Actor;
use super::model::{MODELS, Model};
use super::world::World;

/// How many subjects of each model are written: a record has a kibibyte, and there are millions.
const SUBJECTS: u32 = 4;

/// Writes a file for each model, with a label in each record: `bot:…` or `benign:…`.
pub(crate) fn write(folder: &Path, world: &World, seed: u64) {
    std::fs::create_dir_all(folder).unwrap();
    for model in &MODELS {
        let path = folder.join(file_name(model));
        let mut file = BufWriter::new(File::create(&path).unwrap());
        let actors: Vec<Actor<'_>> = (0..SUBJECTS).map(|number| model.subject(world, seed, number)).collect();
        let mut all: Vec<(&Observation, &Actor<'_>)> =
            actors.iter().flat_map(|actor| actor.trace.iter().map(move |observation| (observation, actor))).collect();
        all.sort_by_key(|(observation, _)| observation.time);
        for (observation, actor) in &all {
            writeln!(file, "{}", line(model, actor, observation)).unwrap();
        }
        file.flush().unwrap();
        println!("{}: {} attempts of {SUBJECTS} subjects", path.display(), all.len());
    }
}

/// One record with its label.
pub(crate) fn line(model: &Model, actor: &Actor<'_>, observation: &Observation) -> String {
    let record = serde_json::to_string(&actor.record(observation, model.port)).unwrap();
    let label = if model.sort.is_bot() { "bot" } else { "benign" };
    record.replacen('{', &format!("{{\"label\":\"{label}:{}\",", model.name), 1)
}

fn file_name(model: &Model) -> String {
    model.name.to_lowercase().replace(' ', "-") + ".jsonl"
}
