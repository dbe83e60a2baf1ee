//! The reports of `graph`: for people, as JSON, and as a drawing for Graphviz.

mod document;
mod drawing;
mod text;

pub use document::{write_answer, write_blocked, write_graph};
pub use drawing::write_drawing;
pub use text::human;
