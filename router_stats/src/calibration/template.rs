//! Chat templates: turning a list of messages into the text a model reads.
//!
//! Renders as transformers' `apply_chat_template` does (Jinja with
//! `trim_blocks`, `lstrip_blocks` and Python's methods), without a generation
//! prompt. Tokenising the result belongs to [`super::Sequences`].

mod json;
mod ordered;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::gguf::Metadata;
use crate::{Error, Result};

/// Special tokens that templates refer to by name.
const TOKENS: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

/// Key of the template of a GGUF file.
const STORED_TEMPLATE: &str = "tokenizer.chat_template";

/// A transcript for models that have no template of their own.
const PLAIN: &str = "\
{%- for message in messages -%}
{{ message.role | capitalize }}: {{ message.content | trim }}{{ '\\n\\n' if not loop.last }}
{%- endfor -%}";

/// A model's chat template with the special tokens it refers to.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    path: PathBuf,
    tokens: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// The template of a checkpoint: that of its directory, or that of the
    /// metadata of its GGUF file.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); [`Error::Config`] for a template that is no
    /// text.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let (path, Some(header)) = (checkpoint.dir(), checkpoint.gguf()) else {
            return Self::read(checkpoint.dir());
        };
        let metadata = &header.metadata;
        let source = metadata.optional_text(STORED_TEMPLATE);
        let Some(source) = source.map_err(|unusable| unusable.at(path))? else {
            return Ok(None);
        };
        Self::new(
            path.to_path_buf(),
            source.to_owned(),
            special_tokens(metadata),
        )
        .map(Some)
    }

    /// Reads the template of a checkpoint directory: `chat_template.jinja`,
    /// else `chat_template` of `tokenizer_config.json` (a string, or a list of
    /// named templates of which `default` is meant). `None` if there is neither.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`], or [`Error::ChatTemplate`] for a template
    /// that does not compile or has no usable form.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let config_path = dir.join("tokenizer_config.json");
        let config: Value = match read_optional(&config_path)? {
            Some(text) => serde_json::from_str(&text).map_err(|source| Error::Json {
                path: config_path.clone(),
                source,
            })?,
            None => Value::Null,
        };
        let jinja_path = dir.join("chat_template.jinja");
        let (path, source) = if let Some(source) = read_optional(&jinja_path)? {
            (jinja_path, source)
        } else if let Some(source) = configured(&config, &config_path)? {
            (config_path, source)
        } else {
            return Ok(None);
        };
        Self::new(path, source, configured_tokens(&config)).map(Some)
    }

    /// The built-in transcript, `User: …` and `Assistant: …` separated by blank
    /// lines, for base models: they have no template, and text about turns is
    /// still text.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`], if the Jinja engine refuses the built-in text.
    pub fn plain() -> Result<Self> {
        Self::new(PathBuf::from("(built in)"), PLAIN.to_owned(), Vec::new())
    }

    /// The template itself, in Jinja.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders one chat. `messages` is a list of objects with `role` and
    /// `content`, as in the OpenAI API.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] with the template's own complaint, if it raises
    /// one.
    pub fn render(&self, messages: &Value) -> Result<String> {
        let mut context: BTreeMap<&str, minijinja::Value> = BTreeMap::from([
            ("messages", ordered::value(messages)),
            ("add_generation_prompt", false.into()),
            ("tools", ().into()),
            ("documents", ().into()),
        ]);
        context.extend(
            self.tokens
                .iter()
                .map(|(name, token)| (*name, token.as_str().into())),
        );
        self.environment
            .template_from_str(&self.source)
            .and_then(|template| template.render(context))
            .map_err(|error| self.error(&error))
    }

    fn new(path: PathBuf, source: String, tokens: Vec<(&'static str, String)>) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", json::to_json);
        let template = Self {
            environment,
            source,
            path,
            tokens,
        };
        template
            .environment
            .template_from_str(&template.source)
            .map_err(|error| template.error(&error))?;
        Ok(template)
    }

    fn error(&self, error: &minijinja::Error) -> Error {
        Error::ChatTemplate {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}

fn read_optional(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// `chat_template` of `tokenizer_config.json`.
fn configured(config: &Value, path: &Path) -> Result<Option<String>> {
    let error = |reason: String| Error::ChatTemplate {
        path: path.to_path_buf(),
        reason,
    };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source.clone())),
        Some(Value::Array(named)) => named
            .iter()
            .find(|entry| entry["name"] == "default")
            .and_then(|entry| entry["template"].as_str())
            .map(|source| Some(source.to_owned()))
            .ok_or_else(|| {
                let names: Vec<_> = named
                    .iter()
                    .filter_map(|entry| entry["name"].as_str())
                    .collect();
                error(format!(
                    "expected a template named `default`, found {}",
                    if names.is_empty() {
                        "no names".to_owned()
                    } else {
                        names.join(", ")
                    }
                ))
            }),
        Some(_) => Err(error(
            "`chat_template`: expected a string or a list of named templates".to_owned(),
        )),
    }
}

/// Special tokens are strings, or objects whose `content` is the string.
fn configured_tokens(config: &Value) -> Vec<(&'static str, String)> {
    TOKENS
        .iter()
        .filter_map(|&name| {
            let token = config.get(name)?;
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name, text.to_owned()))
        })
        .collect()
}

/// The special tokens of a GGUF file, which it has by their numbers: name and
/// text.
pub fn special_tokens(metadata: &Metadata) -> Vec<(&'static str, String)> {
    let Ok(texts) = metadata.texts("tokenizer.ggml.tokens") else {
        return Vec::new();
    };
    let keys = ["bos", "eos", "unknown", "padding"];
    let tokens = TOKENS.iter().zip(keys).filter_map(|(&name, key)| {
        let id = metadata.get(&format!("tokenizer.ggml.{key}_token_id"))?;
        let text = texts.get(usize::try_from(id.natural()?).ok()?)?;
        Some((name, text.clone()))
    });
    tokens.collect()
}

/// How templates refuse a chat: `{{ raise_exception('roles must alternate') }}`.
fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CHATML: &str =
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n\
         {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn inline(source: &str) -> ChatTemplate {
        ChatTemplate::new("test".into(), source.to_owned(), Vec::new()).unwrap()
    }

    fn chat() -> Value {
        json!([{"role": "user", "content": "2 < 3?"}, {"role": "assistant", "content": "yes"}])
    }

    #[test]
    fn renders_chatml_without_a_generation_prompt_or_escaping() {
        assert_eq!(
            inline(CHATML).render(&chat()).unwrap(),
            "<|im_start|>user\n2 < 3?<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
        );
    }

    #[test]
    fn blocks_are_trimmed_as_in_transformers() {
        let source = "{% for m in messages %}\n    {% if m.role == 'user' %}\nQ {{ m.content }}\n    {% endif %}\n{% endfor %}\n";
        assert_eq!(inline(source).render(&chat()).unwrap(), "Q 2 < 3?\n");
    }

    #[test]
    fn python_methods_slices_and_namespaces_work() {
        let source = "{% set ns = namespace(last='') %}{% for m in messages[::-1] %}\
             {% if m.content.startswith('2') %}{% set ns.last = m.content.split(' ')[-1].rstrip('?') %}{% endif %}\
             {% endfor %}{{ ns.last }}{{ messages[0].get('name', '-') }}";
        assert_eq!(inline(source).render(&chat()).unwrap(), "3-");
    }

    #[test]
    fn a_template_can_refuse_a_chat() {
        let template = inline(
            "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}",
        );
        assert_eq!(template.render(&json!([{}])).unwrap(), "");
        let error = template.render(&chat()).unwrap_err();
        assert!(
            matches!(&error, Error::ChatTemplate { reason, .. } if reason.contains("one turn only")),
            "{error}"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn the_jinja_file_wins_over_the_configuration() {
        let config = json!({"chat_template": "config", "eos_token": {"content": "</s>", "special": true}, "bos_token": "<s>"});
        let config = config.to_string();
        let dir = directory(&[
            ("chat_template.jinja", "{{ bos_token }}file{{ eos_token }}"),
            ("tokenizer_config.json", &config),
        ]);
        let template = ChatTemplate::read(dir.path()).unwrap().unwrap();
        assert_eq!(template.render(&json!([])).unwrap(), "<s>file</s>");
    }

    #[test]
    fn named_templates_need_a_default() {
        let named = |name: &str| {
            json!({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": name, "template": "d"}]}).to_string()
        };
        let dir = directory(&[("tokenizer_config.json", &named("default"))]);
        let template = ChatTemplate::read(dir.path()).unwrap().unwrap();
        assert_eq!(template.render(&json!([])).unwrap(), "d");

        let dir = directory(&[("tokenizer_config.json", &named("rag"))]);
        let error = ChatTemplate::read(dir.path()).unwrap_err();
        assert!(error.to_string().contains("found tool_use, rag"), "{error}");
    }

    #[test]
    fn no_template_is_not_an_error_but_a_broken_one_is() {
        assert!(ChatTemplate::read(directory(&[]).path()).unwrap().is_none());
        let dir = directory(&[(
            "tokenizer_config.json",
            r#"{"chat_template": null, "eos_token": null}"#,
        )]);
        assert!(ChatTemplate::read(dir.path()).unwrap().is_none());
        let dir = directory(&[("chat_template.jinja", "{% for m in messages %}")]);
        assert!(matches!(
            ChatTemplate::read(dir.path()),
            Err(Error::ChatTemplate { .. })
        ));
        let dir = directory(&[("tokenizer_config.json", "{")]);
        assert!(matches!(
            ChatTemplate::read(dir.path()),
            Err(Error::Json { .. })
        ));
    }

    #[test]
    fn the_plain_transcript_names_speakers() {
        let text = ChatTemplate::plain().unwrap().render(&chat()).unwrap();
        assert_eq!(text, "User: 2 < 3?\n\nAssistant: yes");
    }
}
