"""The checks of the audit, in the order in which equally severe findings are told."""

from __future__ import annotations

from snellen.audit.borders import shortcut_border
from snellen.audit.bursts import bursts_across_splits
from snellen.audit.classes import imbalance, missing_classes, small_classes, tiny_classes, too_few_images
from snellen.audit.compression import shortcut_compression
from snellen.audit.files import (
    broken_files,
    empty_images,
    left_out,
    mixed_modes,
    odd_brightness,
    odd_shapes,
    odd_sizes,
)
from snellen.audit.identity import identity_leak
from snellen.audit.label_order import class_map_permuted, labels_carry_nothing
from snellen.audit.labels import classes_confused, suspect_labels
from snellen.audit.leaks import (
    conflicting_labels,
    exact_duplicates,
    groups_across_splits,
    leak_across_splits,
    near_duplicates,
)
from snellen.audit.mask_edges import masks_off_edges
from snellen.audit.mask_values import mask_values_between
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
from snellen.audit.outliers import order_not_random, outliers
from snellen.audit.places import boxes_of_turned_images, boxes_off_edges
from snellen.audit.shortcuts import shortcuts
from snellen.audit.sides import class_shares_differ, sides_differ
from snellen.audit.subject import AuditSubject
from snellen.audit.suspect_boxes import suspect_boxes
from snellen.audit.suspect_masks import suspect_masks
from snellen.audit.truncated import truncated_images
from snellen.audit.values import (
    conflicting_values,
    few_judged,
    narrow_values,
    outlying_values,
    value_shortcuts,
)
from snellen.core.finding import Check

LABEL_CHECKS: tuple[Check[AuditSubject], ...] = (
    class_map_permuted,
    labels_carry_nothing,
    suspect_labels,
    classes_confused,
)
"""What can be asked of labels once there are features."""

CHECKS: tuple[Check[AuditSubject], ...] = (
    leak_across_splits,
    groups_across_splits,
    identity_leak,
    bursts_across_splits,
    lost_annotations,
    boxes_off_edges,
    boxes_of_turned_images,
    masks_off_edges,
    suspect_boxes,
    suspect_masks,
    mask_values_between,
    conflicting_labels,
    conflicting_marks,
    conflicting_values,
    narrow_values,
    class_map_permuted,
    labels_carry_nothing,
    suspect_labels,
    classes_confused,
    missing_classes,
    broken_files,
    truncated_images,
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
    sides_differ,
    class_shares_differ,
    shortcuts,
    shortcut_border,
    shortcut_compression,
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
    outliers,
    order_not_random,
    left_out,
)
