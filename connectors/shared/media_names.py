"""Names for files that come without one, as those of SMS and WhatsApp do."""

from __future__ import annotations

# Vendors' own words for file types; `mimetypes` would answer differently from machine to machine.
MEDIA_ENDINGS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/heic": "heic",
    "audio/ogg": "ogg",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "audio/amr": "amr",
    "audio/3gpp": "3gp",
    "video/mp4": "mp4",
    "video/3gpp": "3gp",
    "video/quicktime": "mov",
    "text/vcard": "vcf",
    "text/x-vcard": "vcf",
    "text/plain": "txt",
    "text/csv": "csv",
    "application/pdf": "pdf",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
}


def media_name(content_type: str, number: int) -> str:
    """A file name people understand, since its provider tells none: `image-1.jpg`, `contact-1.vcf`, `file-2.pdf`."""
    ending = MEDIA_ENDINGS.get(content_type, "")
    major = content_type.partition("/")[0]
    noun = "contact" if ending == "vcf" else major if major in ("image", "audio", "video") else "file"
    return f"{noun}-{number}.{ending}" if ending else f"{noun}-{number}"
