/// What our packages use of `sui::transfer`.
module sui::transfer;

public native fun transfer<T: key>(obj: T, recipient: address);

public native fun public_transfer<T: key + store>(obj: T, recipient: address);

public native fun share_object<T: key>(obj: T);
