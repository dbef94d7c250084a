//! Classes of tasks: whoever may take one task of a class may take every other.
//!
//! Tasks of one class stand in one queue and workers in one order for it, so that neither side is searched: a task that nobody
//! suits holds up its own class and no other. A class is known from its first task on. It refuses to know who waits in it.

use std::{collections::HashMap, sync::Arc};

/// The number of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(u32);

impl ClassId {
    /// Where its things are in a list of all classes.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The tasks that one kind of worker may take.
#[derive(Debug)]
pub struct Class {
    /// What a worker must serve.
    pub task_type: Arc<str>,
}

/// Every class there is.
#[derive(Debug, Default)]
pub struct Classes {
    /// Never shrinks: classes come from blueprints.
    all: Vec<Class>,
    by_type: HashMap<Arc<str>, Vec<ClassId>>,
}

impl Classes {
    /// The class of these tasks, and whether it is new.
    pub fn of(&mut self, task_type: &Arc<str>) -> (ClassId, bool) {
        if let Some(&class) = self.of_type(task_type).first() {
            return (class, false);
        }
        let class = ClassId(self.all.len() as u32);
        self.all.push(Class { task_type: task_type.clone() });
        self.by_type.entry(task_type.clone()).or_default().push(class);
        (class, true)
    }

    /// The class with this number.
    pub fn get(&self, class: ClassId) -> &Class {
        &self.all[class.index()]
    }

    /// The classes of this task type.
    pub fn of_type(&self, task_type: &str) -> &[ClassId] {
        self.by_type.get(task_type).map_or(&[], Vec::as_slice)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Every class.
    pub fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.all.iter().enumerate().map(|(number, class)| (ClassId(number as u32), class))
    }
}
