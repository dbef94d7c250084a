//! Classes of tasks: whoever may take one task of a class may take every other.
//!
//! Tasks of one class stand in one queue and workers in one order for it, so that neither side is searched: a task that nobody
//! suits holds up its own class and no other. A class is known from its first task on. Blueprints come and change for as long as the process
//! lives, so a class that has no task, and had none lately, is forgotten when there are many. It refuses to know who waits in it.

use std::{collections::HashMap, sync::Arc};

use crate::{
    blueprint::{About, Comparison, Condition, Needs, Strategy, Test},
    hash::FastMap,
};

/// Classes that are added without asking which are still in use. Whoever is placed is looked at for each that it suits, so more would cost
/// time, and fewer would be found anew too often.
pub const CLASSES_KEPT: usize = 64;

/// The number of a class. Given anew when the class is forgotten.
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
    /// How many classes there were before it, forgotten ones too.
    pub serial: u64,
    /// Whether it had a task since somebody last asked.
    is_used: bool,
}

impl Class {
    /// How a worker is chosen.
    pub fn strategy(&self) -> Strategy {
        self.needs.as_ref().map(|needs| needs.strategy).unwrap_or_default()
    }
}

/// Every class there is.
#[derive(Debug)]
pub struct Classes {
    /// By number.
    all: Vec<Option<Class>>,
    vacant: Vec<ClassId>,
    by_type: FastMap<Arc<str>, OfType>,
    /// How many there ever were.
    added: u64,
    /// So many, and it is time to forget some.
    many: usize,
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            vacant: Vec::new(),
            by_type: FastMap::default(),
            added: 0,
            many: CLASSES_KEPT,
        }
    }
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
            Some(class) => {
                self.slot(class).is_used = true;
                (class, false)
            }
            None => (self.add(task_type, needs), true),
        }
    }

    fn add(&mut self, task_type: &Arc<str>, needs: Option<&Arc<str>>) -> ClassId {
        let class = self.vacant.pop().unwrap_or(ClassId(self.all.len() as u32));
        if class.index() == self.all.len() {
            self.all.push(None);
        }
        let of_type = self.by_type.entry(task_type.clone()).or_default();
        of_type.all.push(class);
        match needs {
            None => of_type.plain = Some(class),
            Some(needs) => drop(of_type.by_needs.insert(needs.clone(), class)),
        }
        let needs = needs.map(|text| Needs::parse(text).unwrap_or_else(|| unreadable(text)));
        let serial = self.added;
        self.added += 1;
        self.all[class.index()] = Some(Class { task_type: task_type.clone(), needs, serial, is_used: true });
        class
    }

    /// Forgets what is not in use if there are many, and returns it. In use is what has tasks, and what had one since this was last done:
    /// so there are never more than these and twice [`CLASSES_KEPT`]. It looks at all of them once in so many that are added.
    pub fn forget_unused(&mut self, has_tasks: impl Fn(ClassId) -> bool) -> Vec<ClassId> {
        if self.len() < self.many {
            return Vec::new();
        }
        let unused = self.iter().filter(|&(class, known)| !known.is_used && !has_tasks(class));
        let unused: Vec<ClassId> = unused.map(|(class, _)| class).collect();
        unused.iter().for_each(|&class| self.forget(class));
        self.all.iter_mut().flatten().for_each(|class| class.is_used = false);
        self.many = self.len() + CLASSES_KEPT;
        unused
    }

    fn forget(&mut self, class: ClassId) {
        let Some(Class { task_type, .. }) = self.all[class.index()].take() else { return };
        self.vacant.push(class);
        let Some(of_type) = self.by_type.get_mut(&task_type) else { return };
        of_type.all.retain(|&other| other != class);
        of_type.by_needs.retain(|_, &mut other| other != class);
        of_type.plain = of_type.plain.filter(|&plain| plain != class);
        if of_type.all.is_empty() {
            self.by_type.remove(&task_type);
        }
    }

    /// The class with this number.
    pub fn get(&self, class: ClassId) -> &Class {
        self.all[class.index()].as_ref().expect(KNOWN)
    }

    fn slot(&mut self, class: ClassId) -> &mut Class {
        self.all[class.index()].as_mut().expect(KNOWN)
    }

    /// The classes of this task type.
    pub fn of_type(&self, task_type: &str) -> &[ClassId] {
        self.by_type.get(task_type).map_or(&[], |of_type| &of_type.all)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len() - self.vacant.len()
    }

    /// How many there ever were.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// The least number that no class has or had.
    pub fn numbers(&self) -> usize {
        self.all.len()
    }

    /// Every class.
    pub fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        let numbered = self.all.iter().enumerate();
        numbered.filter_map(|(number, class)| Some((ClassId(number as u32), class.as_ref()?)))
    }
}

/// Why there is a class of any number that somebody has.
const KNOWN: &str = "whoever has a class's number has tasks of it, or was told that it is forgotten";

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
