"""Runs a command that ends when we are gone: `python _leash.py PARENT PIPE COMMAND ...`.

PIPE is "-": the command is told to stop when its parent dies, however it dies. PIPE is a number: the command stays
until everybody who holds the other end of that pipe is gone, so that they can write down what they have.

A file of its own, run in a fresh interpreter: between fork and exec of a process with threads no Python is safe.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _main(parent: int, pipe: str, command: list[str]) -> None:
    if pipe != "-":
        _outlive(int(pipe), command)
    _follow(parent)
    os.execvp(command[0], command)


def _follow(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")


def _outlive(pipe: int, command: list[str]) -> None:
    """Starts the command and waits for its end, or for everybody else's, and then its end."""
    us = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})
        os.close(pipe)
        _follow(us)
        os.execvp(command[0], command)
    signal.signal(signal.SIGCHLD, lambda *_: _end_like(child))
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})
    os.read(pipe, 1)
    os.kill(child, signal.SIGTERM)
    while True:
        signal.pause()


def _end_like(child: int) -> None:
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != signal.SIGKILL:
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


_main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
