//! The value of an expression.
//!
//! Evaluation borrows from the job's data and copies only what it makes. Every step is paid from a [`Budget`], so that no
//! expression over any data can hold up or exhaust the orchestrator. It is written here, over the parser's tree, because the
//! crate's own interpreter has no such budget and copies all data before the first step.

use std::{cell::OnceCell, rc::Rc};

use super::{
    Scope,
    budget::Budget,
    datum::Datum,
    operators::{self, Evaluated, shown_key, text_of},
    parse::{Function, Loop, LoopKind, Node, Root},
    value::{List, MapVal, Val},
};

/// Elements that one loop may go over. Larger lists belong into a worker.
const LOOP_ELEMENTS_MAX: usize = 10_000;

/// A job's data, each root of it taken apart when an expression first looks at it, and once.
pub struct Data<'s> {
    roots: Rc<Roots<'s>>,
    item: Option<(&'s Datum<'s>, u32)>,
    pub(super) budget: Budget<'s>,
}

/// What all branches of a map see alike.
struct Roots<'s> {
    scope: &'s Scope<'s>,
    initial_data: OnceCell<Datum<'s>>,
    state_history: OnceCell<Datum<'s>>,
    result: OnceCell<Datum<'s>>,
    results: OnceCell<Datum<'s>>,
    signal: OnceCell<Datum<'s>>,
    job: OnceCell<Val<'s>>,
    client: OnceCell<Val<'s>>,
}

impl<'s> Data<'s> {
    /// Nothing taken apart yet.
    pub fn new(scope: &'s Scope<'s>) -> Self {
        let roots = Roots {
            scope,
            initial_data: OnceCell::new(),
            state_history: OnceCell::new(),
            result: OnceCell::new(),
            results: OnceCell::new(),
            signal: OnceCell::new(),
            job: OnceCell::new(),
            client: OnceCell::new(),
        };
        Self { roots: Rc::new(roots), item: scope.item, budget: Budget::of(scope.turn) }
    }

    /// The same for a branch of a map. What has been taken apart serves all branches; each has a budget of its own.
    pub fn of_branch(&self, item: Option<(&'s Datum<'s>, u32)>) -> Self {
        Self { roots: self.roots.clone(), item, budget: Budget::of(self.roots.scope.turn) }
    }

    /// Steps that were taken.
    pub fn steps(&self) -> u64 {
        self.budget.spent()
    }

    /// A root that is data.
    fn datum(&self, root: Root) -> Option<&Datum<'s>> {
        let (roots, scope) = (&*self.roots, self.roots.scope);
        let (cell, text) = match root {
            Root::InitialData => (&roots.initial_data, scope.initial_data.as_str()),
            Root::StateHistory => (&roots.state_history, scope.state_history.as_str()),
            Root::Result => (&roots.result, scope.result.map_or("{}", |result| result.as_str())),
            Root::Signal => (&roots.signal, scope.signal.map_or("{}", |signal| signal.as_str())),
            Root::Results => (&roots.results, scope.results.unwrap_or("[]")),
            // Whoever compiled the expression has seen to it that it stands where there is one.
            Root::Item => return Some(self.item.map_or(&Datum::Null, |(item, _)| item)),
            Root::Index | Root::Now | Root::Client | Root::Job => return None,
        };
        // What comes from outside has passed the gate, and the results are written by the engine.
        Some(cell.get_or_init(|| {
            // If that is too much, the next step is told so.
            let _ = self.budget.scan(text.len());
            Datum::read(text).expect("a job's data are JSON")
        }))
    }

    fn root(&self, root: Root) -> Val<'_> {
        let (roots, scope) = (&*self.roots, self.roots.scope);
        match root {
            Root::Now => Val::Time(scope.now),
            Root::Index => self.item.map_or(Val::Null, |(_, index)| Val::Int(index.into())),
            Root::Client => roots.client.get_or_init(|| made_map([("name", Val::Str(scope.client))])).clone(),
            Root::Job => roots.job.get_or_init(|| job_of(scope)).clone(),
            data => self.datum(data).map_or(Val::Null, Val::of),
        }
    }

    #[cfg(test)]
    pub(super) fn has_read(&self, root: Root) -> bool {
        match root {
            Root::InitialData => self.roots.initial_data.get().is_some(),
            Root::StateHistory => self.roots.state_history.get().is_some(),
            Root::Result => self.roots.result.get().is_some(),
            _ => false,
        }
    }
}

const JOB_MEMBERS: [&str; 7] =
    ["id", "blueprint_name", "blueprint_version", "current_state", "labels", "priority", "created_at"];

fn job_of<'s>(scope: &Scope<'s>) -> Val<'s> {
    made_map(JOB_MEMBERS.into_iter().filter_map(|name| Some((name, job_member(scope, name)?))))
}

fn job_member<'s>(scope: &Scope<'s>, name: &str) -> Option<Val<'s>> {
    Some(match name {
        "id" => Val::Made(scope.job_id.to_string().into()),
        "blueprint_name" => Val::Str(scope.blueprint_name),
        "blueprint_version" => Val::Int(scope.blueprint_version.into()),
        "current_state" => Val::Str(scope.current_state),
        "labels" => made_map(scope.labels.iter().map(|(key, value)| (key.as_str(), Val::Str(value)))),
        "priority" => Val::Int(scope.priority.into()),
        "created_at" => Val::Time(scope.created_at),
        _ => return None,
    })
}

fn made_map<'d, 'k>(members: impl IntoIterator<Item = (&'k str, Val<'d>)>) -> Val<'d> {
    Val::Map(MapVal::Made(members.into_iter().map(|(key, value)| (Rc::from(key), value)).collect()))
}

/// An evaluation under way: the data, and the variables of the loops that it is inside of.
pub struct Evaluation<'d, 's> {
    data: &'d Data<'s>,
    locals: Vec<Val<'d>>,
}

impl<'d, 's> Evaluation<'d, 's> {
    pub fn new(data: &'d Data<'s>) -> Self {
        Self { data, locals: Vec::new() }
    }

    /// The value of a node, or the reason why it has none.
    pub fn eval(&mut self, node: &'d Node) -> Evaluated<'d> {
        self.data.budget.step()?;
        match node {
            Node::Null => Ok(Val::Null),
            Node::Bool(value) => Ok(Val::Bool(*value)),
            Node::Int(value) => Ok(Val::Int(*value)),
            Node::Float(value) => Ok(Val::Float(*value)),
            Node::Str(text) => Ok(Val::Str(text)),
            Node::Root(root) => Ok(self.data.root(*root)),
            Node::Local(place, name) => {
                self.locals.get(*place).cloned().ok_or_else(|| format!("`{name}` has no value"))
            }
            Node::Member(of, name) => self.member(of, name),
            Node::Has(of, name) => self.has(of, name),
            Node::Index(of, index) => self.index(of, index),
            Node::Not(of) => Ok(Val::Bool(!self.condition(of)?)),
            Node::Negate(of) => self.negate(of),
            Node::And(left, right) => self.decide(left, right, false),
            Node::Or(left, right) => self.decide(left, right, true),
            Node::If(condition, yes, no) => {
                if self.condition(condition)? {
                    self.eval(yes)
                } else {
                    self.eval(no)
                }
            }
            Node::Binary(operator, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                operators::binary(*operator, left, right, &self.data.budget)
            }
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Matches(subject, pattern) => {
                let subject = self.eval(subject)?;
                let text = text_of(&subject, "matches")?;
                self.data.budget.scan(8 * text.len())?;
                Ok(Val::Bool(pattern.is_match(text)))
            }
            Node::List(elements) => {
                let values: Result<Vec<_>, _> = elements.iter().map(|element| self.eval(element)).collect();
                Ok(Val::List(List::Made(values?.into())))
            }
            Node::Map(entries) => self.map(entries),
            Node::Loop(loop_) => self.run_loop(loop_),
        }
    }

    /// What a node names in the data, if it is a path into them; without a look at anything if it is none.
    pub fn named(&mut self, node: &'d Node) -> Result<Option<&'d Datum<'d>>, String> {
        let found = match node {
            Node::Root(root) => self.data.datum(*root),
            Node::Member(of, name) => match self.named(of)? {
                Some(Datum::Map(members)) => members.get(name),
                _ => None,
            },
            Node::Index(of, index) => match (&**index, self.named(of)?) {
                (Node::Str(key), Some(Datum::Map(members))) => members.get(key),
                (Node::Int(index), Some(Datum::List(items))) => {
                    usize::try_from(*index).ok().and_then(|index| items.get(index))
                }
                _ => None,
            },
            _ => return Ok(None),
        };
        self.data.budget.step()?;
        Ok(found)
    }

    /// The value of a condition.
    pub fn condition(&mut self, node: &'d Node) -> Result<bool, String> {
        match self.eval(node)? {
            Val::Bool(value) => Ok(value),
            other => Err(format!("{} is {}, a boolean is needed", describe(node), other.shown())),
        }
    }

    fn member(&mut self, of: &'d Node, name: &str) -> Evaluated<'d> {
        // `job.id` is in most templates: not worth making all of `job`.
        if let Node::Root(Root::Job) = of
            && name != "labels"
            && let Some(value) = job_member(self.data.roots.scope, name)
        {
            return Ok(value);
        }
        match self.eval(of)? {
            Val::Map(map) => map.get(name).ok_or_else(|| {
                format!(
                    "{} has no member `{name}`; where it may be missing, test for it with has(…)",
                    describe(of)
                )
            }),
            other => Err(format!("{} is {}, so it has no member `{name}`", describe(of), other.shown())),
        }
    }

    fn has(&mut self, of: &'d Node, name: &str) -> Evaluated<'d> {
        match self.eval(of)? {
            Val::Map(map) => Ok(Val::Bool(map.get(name).is_some())),
            other => Err(format!("{} is {}, so it has no member `{name}`", describe(of), other.shown())),
        }
    }

    fn index(&mut self, of: &'d Node, index: &'d Node) -> Evaluated<'d> {
        match (self.eval(of)?, self.eval(index)?) {
            (Val::List(list), Val::Int(index)) => usize::try_from(index)
                .ok()
                .and_then(|index| list.get(index))
                .ok_or_else(|| format!("{} has {} elements, so none at {index}", describe(of), list.len())),
            (Val::Map(map), index) => {
                let key = text_of(&index, "a map's key")?;
                map.get(key).ok_or_else(|| format!("{} has no member `{}`", describe(of), shown_key(key)))
            }
            (of_value, index) => Err(format!(
                "{} is {}, which has no element at {}",
                describe(of),
                of_value.shown(),
                index.shown()
            )),
        }
    }

    fn negate(&mut self, of: &'d Node) -> Evaluated<'d> {
        match self.eval(of)? {
            Val::Int(value) => Val::int(-value),
            Val::Float(value) => Ok(Val::Float(-value)),
            Val::Span(value) => {
                value.checked_neg().map(Val::Span).ok_or_else(|| "duration overflow".to_owned())
            }
            other => Err(format!("{} has no negative", other.shown())),
        }
    }

    /// `&&` and `||`: an operand that decides the value makes an error of the other one irrelevant, on either side.
    fn decide(&mut self, left: &'d Node, right: &'d Node, decisive: bool) -> Evaluated<'d> {
        let left = self.condition(left);
        if left == Ok(decisive) {
            return Ok(Val::Bool(decisive));
        }
        let right = self.condition(right);
        if right == Ok(decisive) {
            return Ok(Val::Bool(decisive));
        }
        left.and(right).map(Val::Bool)
    }

    fn map(&mut self, entries: &'d [(Node, Node)]) -> Evaluated<'d> {
        let mut members: Vec<(Rc<str>, Val<'d>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.eval(key)?;
            let key: Rc<str> = match key {
                Val::Made(key) => key,
                other => {
                    let key = text_of(&other, "a map's key")?;
                    self.data.budget.make(key.len())?;
                    Rc::from(key)
                }
            };
            if members.iter().any(|(known, _)| *known == key) {
                return Err(format!("the key `{}` stands twice in one map", shown_key(&key)));
            }
            members.push((key, self.eval(value)?));
        }
        Ok(Val::Map(MapVal::Made(members.into())))
    }

    fn run_loop(&mut self, loop_: &'d Loop) -> Evaluated<'d> {
        let list = match self.eval(&loop_.over)? {
            Val::List(list) => list,
            Val::Map(map) => {
                self.data.budget.pay(map.len())?;
                List::Made(map.keys().into())
            }
            other => {
                return Err(format!(
                    "{} is {}, a list or a map is needed",
                    describe(&loop_.over),
                    other.shown()
                ));
            }
        };
        if list.len() > LOOP_ELEMENTS_MAX {
            return Err(format!(
                "{} has {} elements, a loop goes over at most {LOOP_ELEMENTS_MAX}; leave such work to a worker",
                describe(&loop_.over),
                list.len()
            ));
        }
        if loop_.kind == LoopKind::Collect { self.collect(loop_, &list) } else { self.quantify(loop_, &list) }
    }

    /// `map` and `filter`.
    fn collect(&mut self, loop_: &'d Loop, list: &List<'d>) -> Evaluated<'d> {
        let mut collected = Vec::new();
        for index in 0..list.len() {
            let Some(element) = list.get(index) else { break };
            self.locals.push(element);
            let value = self.collect_one(loop_);
            self.locals.pop();
            collected.extend(value?);
        }
        Ok(Val::List(List::Made(collected.into())))
    }

    fn collect_one(&mut self, loop_: &'d Loop) -> Result<Option<Val<'d>>, String> {
        if let Some(condition) = &loop_.condition
            && !self.condition(condition)?
        {
            return Ok(None);
        }
        loop_.body.as_ref().map(|body| self.eval(body)).transpose()
    }

    /// `all`, `exists` and `exists_one`. An element that decides makes errors of other elements irrelevant, as with `&&` and
    /// `||`; `exists_one` has no deciding element.
    fn quantify(&mut self, loop_: &'d Loop, list: &List<'d>) -> Evaluated<'d> {
        let Some(condition) = &loop_.condition else { return Err("the loop has no condition".to_owned()) };
        let mut error = None;
        let mut matches = 0_usize;
        for index in 0..list.len() {
            let Some(element) = list.get(index) else { break };
            self.locals.push(element);
            let holds = self.condition(condition);
            self.locals.pop();
            match (holds, loop_.kind) {
                (Ok(false), LoopKind::All) => return Ok(Val::Bool(false)),
                (Ok(true), LoopKind::Exists) => return Ok(Val::Bool(true)),
                (Ok(true), _) => matches += 1,
                (Ok(false), _) => {}
                (Err(reason), LoopKind::ExistsOne) => return Err(reason),
                (Err(reason), _) => {
                    error.get_or_insert(reason);
                }
            }
        }
        match error {
            Some(reason) => Err(reason),
            None => Ok(Val::Bool(match loop_.kind {
                LoopKind::ExistsOne => matches == 1,
                LoopKind::Exists => false,
                LoopKind::All | LoopKind::Collect => true,
            })),
        }
    }

    fn call(&mut self, function: Function, arguments: &'d [Node]) -> Evaluated<'d> {
        let mut values = arguments.iter().map(|argument| self.eval(argument));
        let first = values.next().transpose()?.unwrap_or(Val::Null);
        let second = values.next().transpose()?;
        let budget = &self.data.budget;
        match function {
            Function::Size => operators::size(&first, budget),
            Function::Contains | Function::StartsWith | Function::EndsWith => {
                let second = second.unwrap_or(Val::Null);
                let (text, part) = (text_of(&first, "the text")?, text_of(&second, "the part")?);
                budget.scan(text.len() + part.len())?;
                Ok(Val::Bool(match function {
                    Function::Contains => text.contains(part),
                    Function::StartsWith => text.starts_with(part),
                    _ => text.ends_with(part),
                }))
            }
            Function::String => operators::to_text(first, budget),
            Function::Int => operators::to_int(&first),
            Function::Double => operators::to_double(&first),
            Function::Bool => operators::to_bool(&first),
            Function::Timestamp => operators::to_timestamp(first),
            Function::Duration => operators::to_duration(first),
            Function::Get(field) => match first {
                Val::Time(time) => field.of_time(time).map(|value| Val::Int(value.into())),
                Val::Span(micros) => field
                    .of_span(micros)
                    .map(|value| Val::Int(value.into()))
                    .ok_or_else(|| "a duration has hours, minutes, seconds and milliseconds only".to_owned()),
                other => Err(format!("{} has no parts of time; make a timestamp(…) of it", other.shown())),
            },
        }
    }
}

/// The node as its author wrote it, where that is a path.
fn describe(node: &Node) -> String {
    fn path(node: &Node) -> Option<String> {
        Some(match node {
            Node::Root(root) => root.name().to_owned(),
            Node::Local(_, name) => name.clone(),
            Node::Member(of, name) => format!("{}.{name}", path(of)?),
            Node::Index(of, index) => match &**index {
                Node::Int(index) => format!("{}[{index}]", path(of)?),
                Node::Str(key) => format!("{}['{}']", path(of)?, shown_key(key)),
                _ => format!("{}[…]", path(of)?),
            },
            _ => return None,
        })
    }
    path(node).map_or_else(|| "the value".to_owned(), |path| format!("`{path}`"))
}
