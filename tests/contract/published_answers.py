"""Facts of the answers that the vendor's documentation publishes, a generation each; URLs are shortened there."""

from __future__ import annotations

from typing import Any, NamedTuple


class Published(NamedTuple):
    """What one published answer says."""

    page: str
    id: str
    status: str
    url: str | None = None
    size: int | None = None
    credits: int | None = None
    detail: dict[str, Any] | None = None


_NO_FACE = {
    "loc": ["body", "image_url"],
    "msg": "Could not detect face in the image",
    "type": "face_detection_error",
    "input": "https://pictures.example.com/picture.jpg",
}

ANSWERS = [
    Published(
        "avatar-pro", "5bc8fbbc-bde5-c099-4164-d8399f767c45:klingai/avatar-pro", "queued", credits=1207500
    ),
    Published(
        "avatar-pro",
        "d76d4330-f144-6bea-b0c1-1fdecb91ce37:klingai/avatar-pro",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
    Published(
        "avatar-standard",
        "87b0b125-ec1d-7da0-a6eb-8c9ebd69fe29:klingai/avatar-standard",
        "queued",
        credits=590100,
    ),
    Published(
        "avatar-standard",
        "c6a53877-7733-0bdb-d721-0dff076ce2ef:klingai/avatar-standard",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
    Published(
        "v1.6-pro-effects",
        "0d464138-a623-3255-3fc1-ea36f17fd374:kling-video/v1.6/pro/effects",
        "error",
        detail=_NO_FACE,
    ),
    Published(
        "v1.6-pro-effects",
        "5f2dd97f-1cfb-10f6-2827-688de6a16a3b:kling-video/v1.6/pro/effects",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
        size=8554108,
    ),
    Published(
        "v1.6-pro-text-to-video",
        "eRjmAPT7yK0JpHA4PP_4T",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4?cacheKey=x&x-kcdn-pid=x&ksSecret=x&ksTime=x",
    ),
    Published(
        "v1.6-standard-effects",
        "e049548e-8a0a-8c96-32ea-6928f6236bf2:kling-video/v1.6/pro/effects",
        "error",
        detail=_NO_FACE,
    ),
    Published(
        "v1.6-standard-effects",
        "2e81d66d-346c-6e2b-a02f-daa1ad864c44:kling-video/v1.6/standard/effects",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
        size=5375765,
    ),
    Published(
        "v1.6-standard-multi-image-to-video",
        "8u_5UXKJDUnAtWU1eVeuD",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4?cacheKey=x&x-kcdn-pid=x&ksSecret=x&ksTime=x",
    ),
    Published(
        "v2-master-image-to-video",
        "f3001cee-05da-8467-f063-13fff9a01fe8:kling-video/v2/master/image-to-video",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
        size=5150376,
    ),
    Published(
        "v2-master-text-to-video",
        "677fd139-d84a-1d3a-5b8e-8fb2bff29101:kling-video/v2/master/text-to-video",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
        size=11664920,
    ),
    Published(
        "v2.1-master-image-to-video",
        "6b384309-c9a9-37a6-8c8f-95ef04a012e8:kling-video/v2.1/master/image-to-video",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
        size=16249652,
    ),
    Published(
        "v2.1-master-text-to-video",
        "d75b1e24-9419-cf4d-6059-7bdc5dbe4409:kling-video/v2.1/master/text-to-video",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
        size=15676617,
    ),
    Published(
        "v2.1-pro-image-to-video",
        "700191799335717780",
        "completed",
        url="https://v15-kling.klingai.com/x/output.mp4?x-kcdn-pid=x",
    ),
    Published(
        "v2.1-standard-image-to-video",
        "790369395331016910",
        "completed",
        url="https://v15-kling.klingai.com/x/output.mp4?x-kcdn-pid=x",
    ),
    Published(
        "v2.5-turbo-pro-image-to-video",
        "ec717f15-8895-787f-99c4-258bfc985000:klingai/v2.5-turbo/pro/image-to-video",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
        size=17744261,
    ),
    Published(
        "v2.5-turbo-pro-text-to-video",
        "bd953dc2-3cc2-1779-0825-c7cc67e84707:klingai/v2.5-turbo/pro/text-to-video",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
        size=20235536,
    ),
    Published(
        "v3-motion-control", "n1dbD7Bf2Hw9qzGcJ2Ud-", "completed", url="https://cdn.aimlapi.com/x/output.mp4"
    ),
    Published(
        "v3-pro-image-to-video",
        "3_dfweTaJY-9qfWFSz4Xz",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
    Published(
        "v3-standard-image-to-video",
        "yusyYuTfyuU8rmAjRsd1r",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
    Published(
        "v3-standard-text-to-video",
        "0Xrw2X24t_9hhK28euvwK",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
    Published(
        "video-o1-reference-to-video",
        "84366826-94b2-4700-efac-6de6c7c66f53:klingai/video-o1-reference-to-video",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
    Published(
        "video-o1-video-to-video-edit",
        "4d7b8661-6bb9-06c9-efb9-f2c6aa61e488:klingai/video-o1-video-to-video-edit",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
    Published(
        "video-o1-video-to-video-reference",
        "ddfc1c08-c653-0cc3-8d9f-07119fad3bf4:klingai/video-o1-video-to-video-reference",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
    Published(
        "video-v2-6-pro-text-to-video",
        "fefaf558-b86d-152d-454c-fe2ba309b1a6:klingai/video-v2-6-pro-text-to-video",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
    Published("video-v2.6-motion-control", "BKcrPtqCeQDHVMNCdZpnQ", "queued"),
    Published(
        "video-v2.6-motion-control",
        "6AaTaG2YCpFjWm91b1rYJ",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4?cacheKey=x&x-kcdn-pid=x&ksSecret=x&ksTime=x",
    ),
    Published(
        "video-v2.6-pro-image-to-video",
        "7a1eb92d-9059-129e-61fb-aa7b988f5e88:klingai/video-v2-6-pro-image-to-video",
        "completed",
        url="https://cdn.aimlapi.com/x/output.mp4",
    ),
]
