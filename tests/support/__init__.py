"""What tests share: real peers on loopback ports, and synthetic DICOM files."""
