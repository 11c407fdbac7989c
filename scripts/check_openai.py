#!/usr/bin/env python3
"""Checks a running server with OpenAI's own Python client, and with curl.

    pip install openai
    mistralrs-prune serve --api-key secret &
    scripts/check_openai.py http://127.0.0.1:1234 --api-key secret

Prints a line for every check; exits with 1 if one failed.
"""

import argparse
import json
import subprocess
import sys

import openai

CHECKS = []


def check(function):
    """A check by the words of its name."""
    CHECKS.append(function)
    return function


MESSAGES = [{"role": "user", "content": "Tell me a story."}]
PROMPT = "Once upon a time there was a little dog"


def text(stream):
    """The text of a stream of a conversation."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


@check
def models(client, model):
    names = [entry.id for entry in client.models.list()]
    assert model in names, names
    assert client.models.retrieve(model).id == model


@check
def chat(client, model):
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8, temperature=0)
    assert answer.object == "chat.completion" and answer.model == model
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@check
def chat_stream(client, model):
    asked = dict(model=model, messages=MESSAGES, max_tokens=16, temperature=0)
    answer = client.chat.completions.create(**asked)
    whole, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert text(chunks) == whole, (text(chunks), whole)
    assert chunks[-1].usage == answer.usage and not chunks[-1].choices
    assert chunks[-2].choices[0].finish_reason == finish


@check
def chat_stream_left_early(client, model):
    stream = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=200, stream=True)
    next(iter(stream))
    stream.close()


@check
def parts_of_a_message(client, model):
    parts = [{"type": "text", "text": "Tell me"}, {"type": "text", "text": "a story."}]
    client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}], max_tokens=2)


@check
def stop(client, model):
    asked = dict(model=model, prompt=PROMPT, max_tokens=24, temperature=0)
    whole = client.completions.create(**asked).choices[0].text
    word = whole.split()[4]
    stopped = client.completions.create(**asked, stop=[word]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.text == whole.split(word)[0], stopped
    chunks = client.completions.create(**asked, stop=word, stream=True)
    streamed = "".join(chunk.choices[0].text for chunk in chunks)
    assert streamed == stopped.text, streamed


@check
def n(client, model):
    asked = dict(model=model, messages=MESSAGES, max_tokens=8, n=3, temperature=1.0)
    choices = client.chat.completions.create(**asked).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    indices, ends = set(), 0
    for chunk in client.chat.completions.create(**asked, stream=True):
        indices |= {choice.index for choice in chunk.choices}
        ends += sum(choice.finish_reason is not None for choice in chunk.choices)
    assert indices == {0, 1, 2} and ends == 3, (indices, ends)


@check
def seed(client, model):
    def draw(seed):
        asked = dict(model=model, prompt=PROMPT, max_tokens=16, temperature=1.0, seed=seed)
        return client.completions.create(**asked).choices[0].text

    assert draw(1) == draw(1) and draw(1) != draw(2)


@check
def logprobs_of_a_conversation(client, model):
    for temperature in (0, 1):
        answer = client.chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=4, temperature=temperature, logprobs=True, top_logprobs=3
        )
        tokens = answer.choices[0].logprobs.content
        assert 1 <= len(tokens) <= 4
        for token in tokens:
            assert token.logprob <= 0 and len(token.top_logprobs) == 3
            if temperature == 0:
                assert token.token == token.top_logprobs[0].token


@check
def logprobs_of_a_text(client, model):
    asked = dict(model=model, prompt=PROMPT, temperature=0, logprobs=2)
    choice = client.completions.create(**asked, max_tokens=4).choices[0]
    assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) == 4
    # Of every token of the prompt, as evaluation harnesses ask.
    echo = client.completions.create(**asked, max_tokens=0, echo=True).choices[0]
    assert echo.logprobs.token_logprobs[0] is None and echo.text == PROMPT


@check
def completions(client, model):
    asked = dict(model=model, max_tokens=6, temperature=0)
    one = client.completions.create(**asked, prompt=PROMPT)
    assert one.object == "text_completion" and one.choices[0].text
    many = client.completions.create(**asked, prompt=[PROMPT, "A cat"])
    assert len(many.choices) == 2 and many.choices[0].text == one.choices[0].text
    tokens = client.completions.create(**asked, prompt=[10, 11, 12])
    assert tokens.usage.prompt_tokens == 3


@check
def json_object(client, model):
    asked = dict(model=model, messages=MESSAGES, max_tokens=8, response_format={"type": "json_object"})
    assert client.chat.completions.create(**asked).choices[0].message.content.startswith("{")


@check
def tool_calls(client, model):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    asked = dict(model=model, messages=MESSAGES, tools=[tool], max_tokens=8, temperature=0)
    message = client.chat.completions.create(**asked).choices[0].message
    # A model whose template has no tools answers in words.
    assert message.content or message.tool_calls[0].function.name == "weather"
    for _ in client.chat.completions.create(**asked, stream=True):
        pass


@check
def errors(client, model):
    def fails(kind, **asked):
        try:
            client.chat.completions.create(**{"model": model, "messages": MESSAGES, "max_tokens": 1, **asked})
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__} of {asked}")

    assert fails(openai.NotFoundError, model="nobody").code == "model_not_found"
    assert fails(openai.BadRequestError, temperature=-1).param == "temperature"
    assert fails(openai.BadRequestError, messages=[]).param == "messages"
    wrong = client.with_options(api_key="wrong")
    if client.api_key != "none":
        try:
            wrong.models.list()
        except openai.AuthenticationError as error:
            assert error.code == "invalid_api_key"
        else:
            raise AssertionError("a wrong key was accepted")


@check
def curl(client, model):
    def run(path, body=None, *more):
        data = ["-d", json.dumps(body)] if body else []
        command = ["curl", "-sS", "--fail-with-body", f"{client.base_url}{path}", *data, *more]
        command += ["-H", f"Authorization: Bearer {client.api_key}", "-H", "Content-Type: application/json"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert json.loads(run("models"))["object"] == "list"
    asked = {"model": model, "messages": MESSAGES, "max_tokens": 4}
    assert json.loads(run("chat/completions", asked))["choices"]
    stream = run("chat/completions", {**asked, "stream": True}, "-N")
    assert stream.rstrip().endswith("data: [DONE]"), stream
    assert json.loads(run("status"))["in_flight"] == 0


def main():
    """See the documentation of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="http://127.0.0.1:1234")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--model", help="the first that has a name of its own")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=f"{args.url}/v1", api_key=args.api_key, max_retries=0, timeout=120)
    model = args.model or next(entry.id for entry in client.models.list() if entry.id != "default")
    failed = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            function(client, model)
            print(f"ok      {name}")
        except Exception as error:  # every check is to be reported
            failed += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}")
    print(f"openai {openai.__version__}: {len(CHECKS) - failed} of {len(CHECKS)}")
    sys.exit(1 if failed else 0)


main()
