//! From the text of an expression to its tree.
//!
//! The grammar is the crate `cel`'s, through its hand-written parser. Its tree is turned at once into a smaller one of our own,
//! in which every name is known: variables are roots or places on the stack, functions are members of an enum, the
//! standard macros are loops again. So whatever can be wrong with an expression without looking at data is found here.

use cel::{
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr as Cel, IdedExpr, LiteralValue, operators},
    parser::{
        ParseErrors, PrattParser,
        pratt_parser::{Lexer, TokenKind},
    },
};
use regex::{Regex, RegexBuilder};

use super::{ExprSyntaxError, value::TimeField};
use crate::{
    blueprint::finding::{did_you_mean, shown},
    spelling::nearest,
};

/// Longest expression. A longer one is a program, and belongs into a worker.
pub const SOURCE_BYTES_MAX: usize = 4096;

/// Tokens of one expression; bounds the work of the parser and the depth of a chain such as `a + b + c`.
const TOKENS_MAX: usize = 1000;

/// Nesting of brackets and of `?:`, which the parser follows by recursion.
const NESTING_MAX: u16 = 32;

/// Nodes of one expression after macros are expanded.
const NODES_MAX: usize = 2000;

/// Depth of the tree, which evaluation follows by recursion; a chain of operators or members is as deep as it is long.
const DEPTH_MAX: usize = 100;

/// Loops inside loops; each level multiplies the work by the length of a list.
const LOOPS_NESTED_MAX: usize = 2;

/// Memory for one compiled pattern; `(a{1000}){1000}` needs a thousand times more.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// An expression in which every name is known.
#[derive(Debug)]
pub enum Node {
    Null,
    Bool(bool),
    /// Within the range of i64 and u64 together.
    Int(i128),
    Float(f64),
    Str(String),
    Root(Root),
    /// The variable of a loop around this node: its place on the stack of loop variables, and its name for messages.
    Local(usize, String),
    Member(Box<Node>, String),
    Has(Box<Node>, String),
    Index(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    If(Box<Node>, Box<Node>, Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Regex),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Loop(Box<Loop>),
}

/// A standard macro: a loop over a list, or over the keys of a map.
#[derive(Debug)]
pub struct Loop {
    pub kind: LoopKind,
    pub over: Node,
    /// The condition. [`LoopKind::Collect`] may do without.
    pub condition: Option<Node>,
    /// What [`LoopKind::Collect`] collects.
    pub body: Option<Node>,
}

/// What a loop makes of its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopKind {
    /// `all`
    All,
    /// `exists`
    Exists,
    /// `exists_one`
    ExistsOne,
    /// `map`, `filter`
    Collect,
}

/// What an expression may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    Job,
    InitialData,
    StateHistory,
    Result,
    Results,
    Client,
    Now,
    /// In the branches of a map over a list.
    Item,
    /// There too.
    Index,
    /// In the condition of an event.
    Signal,
}

/// Where an expression stands, which decides what it may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where nothing more is known than everywhere.
    Common,
    /// In a branch of a map over a list.
    Branch,
    /// In the condition of an event.
    Condition,
}

/// An expression, read.
pub struct Parsed {
    pub tree: Node,
    /// What it looks at: each root once, with the byte at which its name first stands.
    pub roots: Vec<(Root, usize)>,
}

/// An operator with two operands that are both needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
}

/// A function of the standard library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    String,
    Int,
    Double,
    Bool,
    Timestamp,
    Duration,
    Get(TimeField),
}

impl Root {
    const ALL: [Root; 10] = [
        Root::Job,
        Root::InitialData,
        Root::StateHistory,
        Root::Result,
        Root::Results,
        Root::Client,
        Root::Now,
        Root::Item,
        Root::Index,
        Root::Signal,
    ];

    /// The name by which an expression calls it.
    pub fn name(self) -> &'static str {
        match self {
            Root::Job => "job",
            Root::InitialData => "initial_data",
            Root::StateHistory => "state_history",
            Root::Result => "result",
            Root::Results => "results",
            Root::Client => "client",
            Root::Now => "now",
            Root::Item => "item",
            Root::Index => "index",
            Root::Signal => "signal",
        }
    }

    /// The only place that has it, and that place in words; nothing when every place has it.
    fn home(self) -> Option<(Place, &'static str)> {
        match self {
            Root::Item | Root::Index => Some((Place::Branch, "in the branch of a map over a list")),
            Root::Signal => Some((Place::Condition, "in the `when` of an event")),
            _ => None,
        }
    }

    fn is_at(self, place: Place) -> bool {
        self.home().is_none_or(|(home, _)| home == place)
    }
}

impl Binary {
    /// The operator as written.
    pub fn symbol(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Subtract => "-",
            Binary::Multiply => "*",
            Binary::Divide => "/",
            Binary::Remainder => "%",
            Binary::Equal => "==",
            Binary::NotEqual => "!=",
            Binary::Less => "<",
            Binary::LessEqual => "<=",
            Binary::Greater => ">",
            Binary::GreaterEqual => ">=",
            Binary::In => "in",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Some(match name {
            operators::ADD => Binary::Add,
            operators::SUBSTRACT => Binary::Subtract,
            operators::MULTIPLY => Binary::Multiply,
            operators::DIVIDE => Binary::Divide,
            operators::MODULO => Binary::Remainder,
            operators::EQUALS => Binary::Equal,
            operators::NOT_EQUALS => Binary::NotEqual,
            operators::LESS => Binary::Less,
            operators::LESS_EQUALS => Binary::LessEqual,
            operators::GREATER => Binary::Greater,
            operators::GREATER_EQUALS => Binary::GreaterEqual,
            operators::IN => Binary::In,
            _ => return None,
        })
    }
}

/// How a function is called: `f(x)`, `x.f()`, or either.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Global,
    Method,
    Either,
}

/// Name, style, number of arguments counting the one before the dot.
const FUNCTIONS: &[(&str, Style, usize, Function)] = &[
    ("size", Style::Either, 1, Function::Size),
    ("contains", Style::Method, 2, Function::Contains),
    ("startsWith", Style::Method, 2, Function::StartsWith),
    ("endsWith", Style::Method, 2, Function::EndsWith),
    ("string", Style::Global, 1, Function::String),
    ("int", Style::Global, 1, Function::Int),
    ("double", Style::Global, 1, Function::Double),
    ("bool", Style::Global, 1, Function::Bool),
    ("timestamp", Style::Global, 1, Function::Timestamp),
    ("duration", Style::Global, 1, Function::Duration),
    ("getFullYear", Style::Method, 1, Function::Get(TimeField::FullYear)),
    ("getMonth", Style::Method, 1, Function::Get(TimeField::Month)),
    ("getDate", Style::Method, 1, Function::Get(TimeField::Date)),
    ("getDayOfMonth", Style::Method, 1, Function::Get(TimeField::DayOfMonth)),
    ("getDayOfWeek", Style::Method, 1, Function::Get(TimeField::DayOfWeek)),
    ("getDayOfYear", Style::Method, 1, Function::Get(TimeField::DayOfYear)),
    ("getHours", Style::Method, 1, Function::Get(TimeField::Hours)),
    ("getMinutes", Style::Method, 1, Function::Get(TimeField::Minutes)),
    ("getSeconds", Style::Method, 1, Function::Get(TimeField::Seconds)),
    ("getMilliseconds", Style::Method, 1, Function::Get(TimeField::Milliseconds)),
];

/// Names that look like functions and are handled on their own; for messages.
const SPECIAL: &[&str] = &["matches", "has", "all", "exists", "exists_one", "map", "filter"];

/// The tree of an expression that stands at a place.
pub fn parse(source: &str, place: Place) -> Result<Parsed, ExprSyntaxError> {
    if source.trim().is_empty() {
        return Err(wrong(0, "the expression is empty", "write for example `initial_data.amount`"));
    }
    if source.len() > SOURCE_BYTES_MAX {
        return Err(wrong(
            SOURCE_BYTES_MAX,
            format!("the expression has {} bytes, at most {SOURCE_BYTES_MAX} are allowed", source.len()),
            "leave such work to a worker",
        ));
    }
    let names = scan(source)?;
    let tree = PrattParser::new()
        .max_recursion_depth(NESTING_MAX)
        .max_expression_node_count(NODES_MAX)
        .parse(source)
        .map_err(|errors| syntax_error(source, &errors))?;
    let mut lowering =
        Lowering { place, names, roots: Vec::new(), loops: Vec::new(), loop_nesting: 0, nodes: 0 };
    let tree = lowering.lower(&tree, 0)?;
    Ok(Parsed { tree, roots: lowering.roots })
}

/// Looks at the tokens alone: bounds what the parser will meet, and notes where free names stand.
fn scan(source: &str) -> Result<Vec<(String, usize)>, ExprSyntaxError> {
    let mut lexer = Lexer::new(source);
    let (mut tokens, mut open, mut conditionals) = (0_usize, 0_u16, 0_u16);
    let mut names = Vec::new();
    loop {
        let token = lexer.lex();
        match token.kind {
            // The parser meets the same fault and words it.
            TokenKind::TokEnd | TokenKind::TokError => return Ok(names),
            TokenKind::TokWhitespace | TokenKind::TokComment => continue,
            TokenKind::TokLeftParen | TokenKind::TokLeftBracket | TokenKind::TokLeftBrace => open += 1,
            TokenKind::TokRightParen | TokenKind::TokRightBracket | TokenKind::TokRightBrace => {
                open = open.saturating_sub(1);
            }
            TokenKind::TokQuestion => conditionals += 1,
            TokenKind::TokIdent => {
                names.push((source.get(token.start..token.end).unwrap_or_default().to_owned(), token.start));
            }
            TokenKind::TokBytes => {
                return Err(wrong(token.start, "byte strings are not supported", "write a plain string"));
            }
            _ => {}
        }
        tokens += 1;
        if tokens > TOKENS_MAX || open > NESTING_MAX || conditionals > NESTING_MAX {
            return Err(wrong(
                token.start,
                format!(
                    "the expression is too large: at most {TOKENS_MAX} tokens, {NESTING_MAX} nested brackets and \
                     {NESTING_MAX} conditionals are allowed"
                ),
                "split it over several states, or leave such work to a worker",
            ));
        }
    }
}

/// The first of the parser's errors, at its place in the source.
fn syntax_error(source: &str, errors: &ParseErrors) -> ExprSyntaxError {
    let Some(error) = errors.errors.first() else {
        return wrong(0, "the expression cannot be read", CURE_SYNTAX);
    };
    let line = usize::try_from(error.pos.0).unwrap_or(0).saturating_sub(1);
    let column = usize::try_from(error.pos.1).unwrap_or(0).saturating_sub(1);
    let before: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    let offset = source.floor_char_boundary((before + column).min(source.len()));
    let message = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    let message =
        match message.strip_prefix("mismatched input ").and_then(|rest| rest.split_once(" expecting ")) {
            Some((found, expected)) => format!("expected {expected}, found {found}"),
            None => message.to_owned(),
        };
    let message = message.replace("'<EOF>'", "<EOF>").replace("<EOF>", "the end of the expression");
    wrong(offset, shown_message(&message), cure_at(source, offset))
}

/// What to write instead of what stands there, where people who come from other languages often write it.
fn cure_at(source: &str, offset: usize) -> &'static str {
    let rest = source.get(offset..).unwrap_or_default();
    let word = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    match word {
        _ if source.trim_start().starts_with("${") => "write the expression alone, without `${` and `}`",
        "and" | "AND" => "write `&&`",
        "or" | "OR" => "write `||`",
        _ if source.get(..offset).is_some_and(|before| before.trim_end().ends_with("not")) => "write `!`",
        _ if rest.starts_with('=') => "write `==` to compare",
        _ => CURE_SYNTAX,
    }
}

const CURE_SYNTAX: &str = "expressions are CEL, see docs/blueprints.md";

/// The parser quotes the user's text in its messages; keep them on one line.
fn shown_message(message: &str) -> String {
    const MESSAGE_CHARS_MAX: usize = 200;
    message.chars().take(MESSAGE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn wrong(offset: usize, message: impl Into<String>, cure: impl Into<String>) -> ExprSyntaxError {
    ExprSyntaxError { message: message.into(), cure: cure.into(), offset }
}

/// The way from the parser's tree to ours.
struct Lowering {
    place: Place,
    roots: Vec<(Root, usize)>,
    /// Names in the source with their offsets.
    names: Vec<(String, usize)>,
    /// The variables of the loops around the present node.
    loops: Vec<String>,
    /// Bodies of loops around the present node.
    loop_nesting: usize,
    nodes: usize,
}

type Lowered = Result<Node, ExprSyntaxError>;

impl Lowering {
    fn lower(&mut self, tree: &IdedExpr, depth: usize) -> Lowered {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(wrong(
                0,
                format!(
                    "the expression is too large: its tree may have {NODES_MAX} nodes and be {DEPTH_MAX} deep"
                ),
                "split it over several states, or leave such work to a worker",
            ));
        }
        let depth = depth + 1;
        match &tree.expr {
            Cel::Literal(literal) => lower_literal(literal),
            Cel::Ident(name) => self.lower_name(name),
            Cel::Select(select) => {
                let of = Box::new(self.lower(&select.operand, depth)?);
                let name = select.field.clone();
                Ok(if select.test { Node::Has(of, name) } else { Node::Member(of, name) })
            }
            Cel::List(list) => Ok(Node::List(self.lower_all(&list.elements, depth)?)),
            Cel::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(self.unsupported("message literals"));
                    };
                    entries.push((self.lower(&entry.key, depth)?, self.lower(&entry.value, depth)?));
                }
                Ok(Node::Map(entries))
            }
            Cel::Call(call) => self.lower_call(call, depth),
            Cel::Comprehension(comprehension) => self.lower_loop(comprehension, depth),
            Cel::Struct(_) => Err(self.unsupported("message literals")),
            Cel::Unspecified => Err(wrong(0, "the expression cannot be read", CURE_SYNTAX)),
        }
    }

    fn lower_all(&mut self, trees: &[IdedExpr], depth: usize) -> Result<Vec<Node>, ExprSyntaxError> {
        trees.iter().map(|tree| self.lower(tree, depth)).collect()
    }

    fn lower_boxed(&mut self, tree: &IdedExpr, depth: usize) -> Result<Box<Node>, ExprSyntaxError> {
        self.lower(tree, depth).map(Box::new)
    }

    fn lower_name(&mut self, name: &str) -> Lowered {
        if let Some(place) = self.loops.iter().rposition(|variable| variable == name) {
            return Ok(Node::Local(place, name.to_owned()));
        }
        let offset = self.offset_of(name);
        if let Some(root) = Root::ALL.into_iter().find(|root| root.name() == name) {
            if let Some((_, home)) = root.home().filter(|_| !root.is_at(self.place)) {
                return Err(wrong(
                    offset,
                    format!("`{name}` has a value only {home}"),
                    "look at `initial_data`, `state_history`, `result` or `results` here",
                ));
            }
            if !self.roots.iter().any(|(known, _)| *known == root) {
                self.roots.push((root, offset));
            }
            return Ok(Node::Root(root));
        }
        let known = Root::ALL.iter().filter(|root| root.is_at(self.place)).map(|root| root.name());
        let names: Vec<&str> = self.loops.iter().map(String::as_str).collect();
        let names: Vec<&str> = known.chain(names).collect();
        Err(wrong(
            offset,
            format!("unknown variable `{}`", shown(name)),
            did_you_mean(name, names.iter().copied()),
        ))
    }

    fn lower_call(&mut self, call: &CallExpr, depth: usize) -> Lowered {
        if call.target.is_none()
            && let Some(node) = self.lower_operator(call, depth)?
        {
            return Ok(node);
        }
        let name = call.func_name.as_str();
        let arguments = call.args.len() + usize::from(call.target.is_some());
        if name == "matches" && arguments == 2 {
            return self.lower_matches(call, depth);
        }
        // `dyn(x)` tells a type checker to stand back. There is none.
        if name == "dyn" && call.target.is_none() && arguments == 1 {
            return self.lower(&call.args[0], depth);
        }
        let function = self.function(name, call.target.is_some(), arguments)?;
        let mut nodes = Vec::with_capacity(arguments);
        if let Some(target) = &call.target {
            nodes.push(self.lower(target, depth)?);
        }
        nodes.extend(self.lower_all(&call.args, depth)?);
        Ok(Node::Call(function, nodes))
    }

    fn lower_operator(&mut self, call: &CallExpr, depth: usize) -> Result<Option<Node>, ExprSyntaxError> {
        let name = call.func_name.as_str();
        Ok(Some(match (name, call.args.as_slice()) {
            (operators::LOGICAL_NOT, [of]) => Node::Not(self.lower_boxed(of, depth)?),
            (operators::NEGATE, [of]) => Node::Negate(self.lower_boxed(of, depth)?),
            (operators::LOGICAL_AND, [left, right]) => {
                Node::And(self.lower_boxed(left, depth)?, self.lower_boxed(right, depth)?)
            }
            (operators::LOGICAL_OR, [left, right]) => {
                Node::Or(self.lower_boxed(left, depth)?, self.lower_boxed(right, depth)?)
            }
            (operators::CONDITIONAL, [condition, yes, no]) => Node::If(
                self.lower_boxed(condition, depth)?,
                self.lower_boxed(yes, depth)?,
                self.lower_boxed(no, depth)?,
            ),
            (operators::INDEX, [of, index]) => {
                Node::Index(self.lower_boxed(of, depth)?, self.lower_boxed(index, depth)?)
            }
            (name, [left, right]) => match Binary::of(name) {
                Some(operator) => {
                    Node::Binary(operator, self.lower_boxed(left, depth)?, self.lower_boxed(right, depth)?)
                }
                None => return Ok(None),
            },
            _ => return Ok(None),
        }))
    }

    fn lower_matches(&mut self, call: &CallExpr, depth: usize) -> Lowered {
        let (subject, pattern) = match (&call.target, call.args.as_slice()) {
            (Some(subject), [pattern]) => (&**subject, pattern),
            (None, [subject, pattern]) => (subject, pattern),
            _ => return Err(self.unsupported("this form of `matches`")),
        };
        let offset = self.offset_of("matches");
        let Cel::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
            return Err(wrong(
                offset,
                "the pattern of `matches` is no literal",
                "write it out, as in `initial_data.code.matches('^[A-Z]+$')`",
            ));
        };
        let regex = RegexBuilder::new(pattern.inner())
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .nest_limit(u32::from(NESTING_MAX))
            .build()
            .map_err(|error| {
                let reason = error.to_string();
                let reason = reason
                    .lines()
                    .last()
                    .unwrap_or("invalid")
                    .trim_start_matches("error: ")
                    .trim_end_matches('.');
                wrong(
                    offset,
                    format!("the pattern of `matches` is refused: {}", shown_message(reason)),
                    "write a shorter or correct RE2 pattern",
                )
            })?;
        Ok(Node::Matches(self.lower_boxed(subject, depth)?, regex))
    }

    fn function(&self, name: &str, method: bool, arguments: usize) -> Result<Function, ExprSyntaxError> {
        let Some((_, style, wanted, function)) = FUNCTIONS.iter().find(|function| function.0 == name) else {
            if SPECIAL.contains(&name) {
                return Err(wrong(
                    self.offset_of(name),
                    format!("`{name}` is called in a way it does not have"),
                    "see docs/blueprints.md for the forms of `has`, `matches` and the loops",
                ));
            }
            let names = FUNCTIONS.iter().map(|function| function.0).chain(SPECIAL.iter().copied());
            let cure = match nearest(name, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "docs/blueprints.md lists the functions".to_owned(),
            };
            return Err(wrong(self.offset_of(name), format!("unknown function `{}`", shown(name)), cure));
        };
        let fits = *style == Style::Either || (*style == Style::Method) == method;
        if fits && arguments == *wanted {
            return Ok(*function);
        }
        let form = match (style, wanted) {
            (Style::Global | Style::Either, _) => format!("{name}(x)"),
            (Style::Method, 1) => format!("x.{name}()"),
            (Style::Method, _) => format!("x.{name}(y)"),
        };
        Err(wrong(
            self.offset_of(name),
            format!("`{name}` is called in a way it does not have"),
            format!("write `{form}`"),
        ))
    }

    /// Recognises which macro the parser expanded: each has its own initial value.
    fn lower_loop(&mut self, loop_: &ComprehensionExpr, depth: usize) -> Lowered {
        let over = self.lower(&loop_.iter_range, depth)?;
        if self.loop_nesting >= LOOPS_NESTED_MAX {
            return Err(wrong(
                self.offset_of(&loop_.iter_var),
                format!("more than {LOOPS_NESTED_MAX} loops are nested"),
                "leave such work to a worker",
            ));
        }
        self.loops.push(loop_.iter_var.clone());
        self.loop_nesting += 1;
        let parts = self.lower_loop_parts(loop_, depth);
        self.loop_nesting -= 1;
        self.loops.pop();
        let (kind, condition, body) = parts?;
        Ok(Node::Loop(Box::new(Loop { kind, over, condition, body })))
    }

    fn lower_loop_parts(
        &mut self,
        loop_: &ComprehensionExpr,
        depth: usize,
    ) -> Result<(LoopKind, Option<Node>, Option<Node>), ExprSyntaxError> {
        let Cel::Call(step) = &loop_.loop_step.expr else {
            return Err(self.unsupported("this macro"));
        };
        match (&loop_.accu_init.expr, step.func_name.as_str(), step.args.as_slice()) {
            (Cel::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_AND, [_, condition]) => {
                Ok((LoopKind::All, Some(self.lower(condition, depth)?), None))
            }
            (Cel::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_OR, [_, condition]) => {
                Ok((LoopKind::Exists, Some(self.lower(condition, depth)?), None))
            }
            (Cel::Literal(LiteralValue::Int(_)), operators::CONDITIONAL, [condition, _, _]) => {
                Ok((LoopKind::ExistsOne, Some(self.lower(condition, depth)?), None))
            }
            (Cel::List(_), operators::CONDITIONAL, [condition, grown, _]) => {
                let condition = self.lower(condition, depth)?;
                let body = self.lower_collected(grown, depth)?;
                Ok((LoopKind::Collect, Some(condition), Some(body)))
            }
            (Cel::List(_), operators::ADD, _) => {
                let body = self.lower_collected(&loop_.loop_step, depth)?;
                Ok((LoopKind::Collect, None, Some(body)))
            }
            _ => Err(self.unsupported("this macro")),
        }
    }

    /// Takes `x` out of `@result + [x]`.
    fn lower_collected(&mut self, grown: &IdedExpr, depth: usize) -> Lowered {
        if let Cel::Call(call) = &grown.expr
            && let [_, added] = call.args.as_slice()
            && let Cel::List(list) = &added.expr
            && let [element] = list.elements.as_slice()
        {
            return self.lower(element, depth);
        }
        Err(self.unsupported("this macro"))
    }

    fn unsupported(&self, what: &str) -> ExprSyntaxError {
        wrong(0, format!("{what} are not supported"), "write a map such as `{'id': job.id}`")
    }

    /// Where a name first stands in the source.
    fn offset_of(&self, name: &str) -> usize {
        let name = name.trim_start_matches('.');
        self.names.iter().find(|(known, _)| known == name).map_or(0, |(_, offset)| *offset)
    }
}

fn lower_literal(literal: &LiteralValue) -> Lowered {
    Ok(match literal {
        LiteralValue::Null => Node::Null,
        LiteralValue::Boolean(value) => Node::Bool(*value.inner()),
        LiteralValue::Int(value) => Node::Int(i128::from(*value.inner())),
        LiteralValue::UInt(value) => Node::Int(i128::from(*value.inner())),
        LiteralValue::Double(value) => Node::Float(*value.inner()),
        LiteralValue::String(value) => Node::Str(value.inner().to_owned()),
        LiteralValue::Bytes(_) => {
            return Err(wrong(0, "byte strings are not supported", "write a plain string"));
        }
    })
}
