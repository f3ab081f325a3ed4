"""PS3.8 Table 9-10, the whole Upper Layer automaton, as one table.

A row of the standard's table is an event, a column a state, a cell an action; the action says which state comes next. Here a
cell is `(state, event): action`, written row by row as the standard prints it. A pair that is not here cannot happen, or is
the local user's mistake: the standard leaves those cells empty.

An action is one function of `actions.py`, named by its code and meaning. It does what the standard says and returns the next
state. Nothing else in tomowire sets a state.

Reading it: the association starts in Sta1; a requestor goes 1 -> 4 -> 5 -> 6, an acceptor 1 -> 2 -> 3 -> 6. Data moves in Sta6.
A release goes 6 -> 7 -> 1 for the side that asked and 6 -> 8 -> 13 for the other. When both ask at once, 7 becomes 9 and 11 for
the requestor, 10 and 12 for the acceptor. Whatever goes wrong ends in Sta13, which only waits for the connection to close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.protocol import actions as do
from tomowire.protocol.states import Event, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tomowire.protocol.upper_layer import UpperLayer

    Action = Callable[[UpperLayer, object], State]

_COLUMNS: Final = tuple(State)


def _row(event: Event, *cells: Action | None) -> dict[tuple[int, int], Action]:
    """One printed row of Table 9-10: thirteen cells, Sta1 to Sta13."""
    return {(state, event): action for state, action in zip(_COLUMNS, cells, strict=True) if action is not None}


x: Final = None  # the standard leaves the cell empty
ae_1, ae_2, ae_3, ae_4 = (
    do.ae_1_open_transport,
    do.ae_2_send_associate_rq,
    do.ae_3_confirm_accept,
    do.ae_4_confirm_reject,
)
ae_5, ae_6, ae_7, ae_8 = (
    do.ae_5_start_artim,
    do.ae_6_examine_associate_rq,
    do.ae_7_send_associate_ac,
    do.ae_8_send_associate_rj,
)
dt_1, dt_2 = do.dt_1_send_p_data, do.dt_2_indicate_p_data
ar_1, ar_2, ar_3 = do.ar_1_send_release_rq, do.ar_2_indicate_release, do.ar_3_confirm_release
ar_4, ar_5, ar_6 = do.ar_4_send_release_rp, do.ar_5_stop_artim, do.ar_6_indicate_p_data
ar_7, ar_8, ar_9 = do.ar_7_send_p_data, do.ar_8_indicate_release_collision, do.ar_9_send_release_rp
ar10 = do.ar_10_confirm_release_collision
aa_1, aa_2, aa_3, aa_4 = do.aa_1_send_abort, do.aa_2_close, do.aa_3_indicate_abort, do.aa_4_indicate_connection_lost
aa_5, aa_6, aa_7, aa_8 = do.aa_5_stop_artim, do.aa_6_ignore, do.aa_7_send_abort_again, do.aa_8_abort_as_provider

# fmt: off
TRANSITIONS: Final[Mapping[tuple[int, int], Action]] = {
    #                                               Sta1  Sta2  Sta3  Sta4  Sta5  Sta6  Sta7  Sta8  Sta9  Sta10 Sta11 Sta12 Sta13
    **_row(Event.EVT1_ASSOCIATE_REQUEST,            ae_1, x,    x,    x,    x,    x,    x,    x,    x,    x,    x,    x,    x),
    **_row(Event.EVT2_TRANSPORT_CONNECTED,          x,    x,    x,    ae_2, x,    x,    x,    x,    x,    x,    x,    x,    x),
    **_row(Event.EVT3_ASSOCIATE_AC_RECEIVED,        x,    aa_1, aa_8, x,    ae_3, aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_6),
    **_row(Event.EVT4_ASSOCIATE_RJ_RECEIVED,        x,    aa_1, aa_8, x,    ae_4, aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_6),
    **_row(Event.EVT5_TRANSPORT_CONNECTION_INDICATION, ae_5, x, x,    x,    x,    x,    x,    x,    x,    x,    x,    x,    x),
    **_row(Event.EVT6_ASSOCIATE_RQ_RECEIVED,        x,    ae_6, aa_8, x,    aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_7),
    **_row(Event.EVT7_ASSOCIATE_RESPONSE_ACCEPT,    x,    x,    ae_7, x,    x,    x,    x,    x,    x,    x,    x,    x,    x),
    **_row(Event.EVT8_ASSOCIATE_RESPONSE_REJECT,    x,    x,    ae_8, x,    x,    x,    x,    x,    x,    x,    x,    x,    x),
    **_row(Event.EVT9_P_DATA_REQUEST,               x,    x,    x,    x,    x,    dt_1, x,    ar_7, x,    x,    x,    x,    x),
    **_row(Event.EVT10_P_DATA_TF_RECEIVED,          x,    aa_1, aa_8, x,    aa_8, dt_2, ar_6, aa_8, aa_8, aa_8, aa_8, aa_8, aa_6),
    **_row(Event.EVT11_RELEASE_REQUEST,             x,    x,    x,    x,    x,    ar_1, x,    x,    x,    x,    x,    x,    x),
    **_row(Event.EVT12_RELEASE_RQ_RECEIVED,         x,    aa_1, aa_8, x,    aa_8, ar_2, ar_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_6),
    **_row(Event.EVT13_RELEASE_RP_RECEIVED,         x,    aa_1, aa_8, x,    aa_8, aa_8, ar_3, aa_8, aa_8, ar10, ar_3, aa_8, aa_6),
    **_row(Event.EVT14_RELEASE_RESPONSE,            x,    x,    x,    x,    x,    x,    x,    ar_4, ar_9, x,    x,    ar_4, x),
    **_row(Event.EVT15_ABORT_REQUEST,               x,    x,    aa_1, aa_2, aa_1, aa_1, aa_1, aa_1, aa_1, aa_1, aa_1, aa_1, x),
    **_row(Event.EVT16_ABORT_RECEIVED,              x,    aa_2, aa_3, x,    aa_3, aa_3, aa_3, aa_3, aa_3, aa_3, aa_3, aa_3, aa_2),
    **_row(Event.EVT17_TRANSPORT_CLOSED,            x,    aa_5, aa_4, aa_4, aa_4, aa_4, aa_4, aa_4, aa_4, aa_4, aa_4, aa_4, ar_5),
    **_row(Event.EVT18_ARTIM_EXPIRED,               x,    aa_2, x,    x,    x,    x,    x,    x,    x,    x,    x,    x,    aa_2),
    **_row(Event.EVT19_INVALID_PDU_RECEIVED,        x,    aa_1, aa_8, x,    aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_8, aa_7),
}
# fmt: on
