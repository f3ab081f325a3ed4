"""Models and levels, against PS3.4 C.6 and pydicom's dictionary of UIDs."""

from __future__ import annotations

import pytest
from pydicom.uid import UID

from tomowire import Level, Model, querying
from tomowire.services.models import model_of

# PS3.4 C.6.1.3, C.6.2.3 and C.6.3.3: as the standard names the SOP classes.
NAMES = {
    Model.PATIENT_ROOT: "Patient Root Query/Retrieve Information Model",
    Model.STUDY_ROOT: "Study Root Query/Retrieve Information Model",
    Model.PATIENT_STUDY_ONLY: "Patient/Study Only Query/Retrieve Information Model",
}


@pytest.mark.parametrize("model", Model)
def test_sop_classes_are_those_of_the_standard(model: Model) -> None:
    for uid, operation in ((model.find, "FIND"), (model.move, "MOVE"), (model.get, "GET")):
        assert UID(uid).name.removesuffix(" (Retired)") == f"{NAMES[model]} - {operation}"
        assert model_of(uid) is model
    assert NAMES[model].startswith(str(model))


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.31", "1.2.840.10008.5.1.4.1.2.1", "1.2.840.10008.1.1", ""])
def test_other_sop_classes_have_no_model(uid: str) -> None:
    assert model_of(uid) is None


def test_levels_of_the_models() -> None:
    """PS3.4 C.6.1.1.1, C.6.2.1.1, C.6.3.1.1."""
    assert [*Model.PATIENT_ROOT.levels] == ["PATIENT", "STUDY", "SERIES", "IMAGE"]
    assert [*Model.STUDY_ROOT.levels] == ["STUDY", "SERIES", "IMAGE"]
    assert [*Model.PATIENT_STUDY_ONLY.levels] == ["PATIENT", "STUDY"]


def test_unique_keys() -> None:
    """PS3.4 Tables C.6-1 to C.6-5: type U."""
    assert [level.unique_key for level in Level] == [
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    ]


def test_what_is_proposed_has_the_transfer_syntax_that_everyone_has() -> None:
    assert querying().abstract_syntax == "1.2.840.10008.5.1.4.1.2.2.1"
    proposed = querying(Model.PATIENT_ROOT)
    assert proposed.abstract_syntax == "1.2.840.10008.5.1.4.1.2.1.1"
    assert "1.2.840.10008.1.2" in proposed.transfer_syntaxes  # PS3.5 10.1
    assert (proposed.scu, proposed.scp) == (True, False)
