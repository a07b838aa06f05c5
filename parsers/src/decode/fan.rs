//! One element of a list at a time, laid over the object that the list stands in.
//!
//! A path is looked for in the element first and then in the rest of the object, so that one rule
//! reads records of one thing and records of many alike (`$json.name` is the element's name, and
//! `$json.actor.email` the one that stands once for all). The path of the list itself is the
//! element.

use super::json::{At, Kind, NOWHERE, Paths, Tape, index};

impl Tape {
    /// The elements of the list that stands in a slot; `None` where there is no list, or an empty
    /// one.
    pub(crate) fn elements(&self, slot: u32) -> Option<(At, usize)> {
        let list = self.slot(slot)?;
        let count = self.children(list).count();
        (self.kind(list) == Kind::List && count > 0).then_some((list, count))
    }

    /// Notes where the values of these paths stand for one element of a list; all values count as
    /// not taken up again.
    pub(crate) fn lay(&mut self, list: At, element: At, trees: &[Paths], slots: usize) {
        for used in &mut self.used {
            used.set(false);
        }
        self.locate(trees, slots);
        let mut over = std::mem::take(&mut self.spare);
        let mut touched = std::mem::take(&mut self.touched);
        over.clear();
        over.resize(slots, NOWHERE);
        for paths in trees.iter().filter(|paths| !paths.is_empty()) {
            self.walk(element, paths, 0, &mut over, &mut touched);
        }
        for (found, over) in self.found.iter_mut().zip(&over) {
            if *over != NOWHERE {
                *found = *over;
            } else if *found == list {
                *found = element;
            }
        }
        self.spare = over;
        self.touched = touched;
        self.element = Some(element);
        self.take(list);
    }

    /// The object again, without an element laid over it.
    pub(crate) fn lift(&mut self, trees: &[Paths], slots: usize) {
        for used in &mut self.used {
            used.set(false);
        }
        self.element = None;
        self.locate(trees, slots);
    }

    /// The element that is laid over the object.
    pub(crate) fn element(&self) -> Option<At> {
        self.element
    }

    /// The text of an object or list as it stands in the message; of a JSON text without its
    /// quotes.
    pub(crate) fn written<'t>(&'t self, at: At, message: &'t str) -> &'t str {
        self.nodes.get(index(at)).map_or("", |node| self.span(node.text, message))
    }
}
