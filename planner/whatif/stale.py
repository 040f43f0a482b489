"""Does a plan file still say what the facts of today say?"""

from __future__ import annotations

from dataclasses import dataclass

from catalog.load import Catalog
from planner.errors import InputError
from planner.plan import Document
from planner.verify import VerificationError, verify_document


@dataclass(frozen=True)
class Freshness:
    """What became of a plan file."""

    notes: tuple[str, ...]
    """In words; empty for a plan that was made with these facts."""
    holds: bool
    """Whether every number of the file is what the cost model says now, and every limit is kept."""


def freshness(document: Document, catalog: Catalog) -> Freshness:
    """Compare a plan with what its decision is priced at now; an infeasible request has nothing to price."""
    notes = []
    made_with = document.provenance.catalog_hash
    if made_with != catalog.content_hash:
        notes.append(f"planned with catalog {made_with}; this one is {catalog.content_hash}")
    if document.decision is None:
        return Freshness(tuple(notes), holds=not notes)
    try:
        verify_document(document, catalog)
    except VerificationError as error:
        # A decision of one's own may break a limit; a plan may not.
        problems = [text for text in error.problems if document.status != "evaluated" or text.startswith("metrics.")]
        if not problems:
            return Freshness(tuple(notes), holds=True)
        shown = problems[:3] + ([f"and {len(problems) - 3} more"] if len(problems) > 3 else [])
        notes.append(f"its numbers don't hold any more ({'; '.join(shown)}); plan again")
        return Freshness(tuple(notes), holds=False)
    except (InputError, LookupError) as error:
        notes.append(f"its decision can't be priced any more ({error}); plan again")
        return Freshness(tuple(notes), holds=False)
    if notes:
        notes[0] += ", by which every number still holds"
    return Freshness(tuple(notes), holds=True)
