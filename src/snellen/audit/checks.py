"""The checks of the audit, in the order in which equally severe findings are told."""

from __future__ import annotations

from snellen.audit.classes import imbalance, missing_classes, small_classes, tiny_classes, too_few_images
from snellen.audit.files import (
    broken_files,
    empty_images,
    left_out,
    mixed_modes,
    odd_brightness,
    odd_shapes,
    odd_sizes,
)
from snellen.audit.leaks import (
    conflicting_labels,
    exact_duplicates,
    groups_across_splits,
    leak_across_splits,
    near_duplicates,
)
from snellen.audit.masks import rare_pixels, void_masks
from snellen.audit.objects import (
    conflicting_marks,
    crowded_images,
    few_objects,
    images_without_objects,
    lost_annotations,
    objects_at_the_border,
    repeated_objects,
    tiny_objects,
    unequal_objects,
    whole_image_objects,
)
from snellen.audit.shortcuts import shortcuts
from snellen.audit.subject import AuditSubject
from snellen.audit.values import (
    conflicting_values,
    few_judged,
    narrow_values,
    outlying_values,
    value_shortcuts,
)
from snellen.core.finding import Check

CHECKS: tuple[Check[AuditSubject], ...] = (
    leak_across_splits,
    groups_across_splits,
    lost_annotations,
    conflicting_labels,
    conflicting_marks,
    conflicting_values,
    narrow_values,
    missing_classes,
    broken_files,
    too_few_images,
    few_judged,
    tiny_classes,
    imbalance,
    few_objects,
    repeated_objects,
    tiny_objects,
    whole_image_objects,
    crowded_images,
    unequal_objects,
    void_masks,
    shortcuts,
    outlying_values,
    value_shortcuts,
    exact_duplicates,
    near_duplicates,
    empty_images,
    small_classes,
    images_without_objects,
    objects_at_the_border,
    rare_pixels,
    mixed_modes,
    odd_sizes,
    odd_shapes,
    odd_brightness,
    left_out,
)
