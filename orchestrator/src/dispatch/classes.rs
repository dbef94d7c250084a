//! Classes of tasks: whoever may take one task of a class may take every other.
//!
//! Tasks of one class stand in one queue and workers in one order for it, so that neither side is searched: a task that nobody
//! suits holds up its own class and no other. A class is known from its first task on. It refuses to know who waits in it.

use std::{collections::HashMap, sync::Arc};

use crate::blueprint::{About, Comparison, Condition, Needs, Strategy, Test};

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
    /// What else is asked of it.
    pub needs: Option<Needs>,
}

impl Class {
    /// How a worker is chosen.
    pub fn strategy(&self) -> Strategy {
        self.needs.as_ref().map(|needs| needs.strategy).unwrap_or_default()
    }
}

/// Every class there is.
#[derive(Debug, Default)]
pub struct Classes {
    /// Never shrinks: classes come from blueprints.
    all: Vec<Class>,
    by_type: HashMap<Arc<str>, OfType>,
}

/// The classes of one task type.
#[derive(Debug, Default)]
struct OfType {
    all: Vec<ClassId>,
    /// The class that asks for nothing else.
    plain: Option<ClassId>,
    by_needs: HashMap<Arc<str>, ClassId>,
}

impl Classes {
    /// The class of these tasks, and whether it is new.
    pub fn of(&mut self, task_type: &Arc<str>, needs: Option<&Arc<str>>) -> (ClassId, bool) {
        let of_type = self.by_type.get(task_type);
        let known = of_type.and_then(|of_type| match needs {
            None => of_type.plain,
            Some(needs) => of_type.by_needs.get(needs).copied(),
        });
        match known {
            Some(class) => (class, false),
            None => (self.add(task_type, needs), true),
        }
    }

    fn add(&mut self, task_type: &Arc<str>, needs: Option<&Arc<str>>) -> ClassId {
        let class = ClassId(self.all.len() as u32);
        let of_type = self.by_type.entry(task_type.clone()).or_default();
        of_type.all.push(class);
        match needs {
            None => of_type.plain = Some(class),
            Some(needs) => drop(of_type.by_needs.insert(needs.clone(), class)),
        }
        let needs = needs.map(|text| Needs::parse(text).unwrap_or_else(|| unreadable(text)));
        self.all.push(Class { task_type: task_type.clone(), needs });
        class
    }

    /// The class with this number.
    pub fn get(&self, class: ClassId) -> &Class {
        &self.all[class.index()]
    }

    /// The classes of this task type.
    pub fn of_type(&self, task_type: &str) -> &[ClassId] {
        self.by_type.get(task_type).map_or(&[], |of_type| &of_type.all)
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

/// What nobody meets: a later version may know what is asked for, and whoever explains the job names what is not understood.
fn unreadable(text: &Arc<str>) -> Needs {
    tracing::error!("A task asks for what this version does not understand, so it waits: {text}");
    let test = Test::Compared(Comparison::Is, text.clone());
    let condition = Condition { about: About::Label, name: Arc::from(""), test };
    Needs {
        text: text.clone(),
        requires: vec![condition],
        max_cost: None,
        prefers: Vec::new(),
        strategy: Strategy::Default,
    }
}
