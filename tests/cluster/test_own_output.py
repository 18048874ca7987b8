"""What other threads print leaves stdout alone."""

import sys
import threading

from trunkline.cluster.launchers.own_output import own_output


def test_other_threads_write_to_stderr_while_it_lasts(capsys):
    def speak():
        print("(raylet) a worker died")

    with own_output():
        other = threading.Thread(target=speak)
        other.start()
        other.join()
        print('{"top1": 1}')
        assert not sys.stdout.closed
    shown = capsys.readouterr()
    assert shown.out == '{"top1": 1}\n' and shown.err == "(raylet) a worker died\n"
    again = threading.Thread(target=speak)
    again.start()
    again.join()
    assert "raylet" in capsys.readouterr().out
